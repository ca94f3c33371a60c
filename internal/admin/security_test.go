package admin_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/farspeak/farspeak/internal/admin"
	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// Every call but health checks needs the token. G-17
func TestToken_G17(t *testing.T) {
	f := serve(t, &failingStore{}, func(c *admin.Config) { c.Token = "s3cret" })
	with := func(values ...string) context.Context {
		ctx := t.Context()
		for _, value := range values {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", value)
		}
		return ctx
	}
	tests := []struct {
		ctx  context.Context
		code codes.Code
	}{
		{with(), codes.Unauthenticated},
		{with(""), codes.Unauthenticated},
		{with("Bearer"), codes.Unauthenticated},
		{with("Bearer "), codes.Unauthenticated},
		{with("Bearer wrong"), codes.Unauthenticated},
		{with("Basic s3cret"), codes.Unauthenticated},
		{with("s3cret"), codes.Unauthenticated},
		{with("Bearer s3cret", "Bearer s3cret"), codes.Unauthenticated},
		{with("Bearer s3cret"), codes.OK},
		{with("bearer s3cret"), codes.OK},
	}
	for i, test := range tests {
		_, err := f.admin.KeepAlive(test.ctx, &fspb.EmptyMessage{})
		if (err == nil) != (test.code == codes.OK) {
			t.Errorf("case %d: %v", i, err)
		}
		wantCode(t, err, test.code)
	}
	stream, err := f.admin.StreamClientIds(t.Context(), &serverpb.StreamClientIdsRequest{})
	f.must(err)
	_, err = stream.Recv()
	wantCode(t, err, codes.Unauthenticated)
	if _, err := healthpb.NewHealthClient(f.conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("a health check without the token: %v", err)
	}
	if got := f.metric("farspeak_admin_refused_calls_total"); got != 9 {
		t.Errorf("%v refused calls counted, want 9", got)
	}
	// Refused before the message is read: a large one is not waited for.
	_, err = f.admin.InsertMessage(t.Context(), message(identity.NewClientID()))
	wantCode(t, err, codes.Unauthenticated)
}

// authority issues certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	pair := a.issue("authority")
	a.cert, a.key = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

func (a *authority) issue(name string) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		template.IsCA, template.BasicConstraintsValid, template.ExtKeyUsage = true, true, nil
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// With an authority for callers, only its certificates get in. G-17
func TestMutualTLS_G17(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	f := serve(t, &failingStore{}, func(c *admin.Config) {
		c.TLS = &tls.Config{
			Certificates: []tls.Certificate{ours.issue("server")}, MinVersion: tls.VersionTLS12,
			ClientCAs: ours.pool(), ClientAuth: tls.RequireAndVerifyClientCert,
		}
	})
	call := func(certificates ...tls.Certificate) error {
		conn := dial(t, f.address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			RootCAs: ours.pool(), ServerName: "localhost", Certificates: certificates,
		})))
		_, err := serverpb.NewAdminClient(conn).KeepAlive(t.Context(), &fspb.EmptyMessage{})
		return err
	}
	if err := call(ours.issue("backend")); err != nil {
		t.Error(err)
	}
	wantCode(t, call(others.issue("stranger")), codes.Unavailable)
	wantCode(t, call(), codes.Unavailable)
	_, err := f.admin.KeepAlive(t.Context(), &fspb.EmptyMessage{}) // plaintext
	wantCode(t, err, codes.Unavailable)
}
