package adminapi_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/adminapi"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// daemon answers KeepAlive, with an error if it is given one.
type daemon struct {
	serverpb.UnimplementedAdminServer
	err   error
	hang  bool
	token chan string // the authorization of each call
}

func (d *daemon) KeepAlive(ctx context.Context, _ *fspb.EmptyMessage) (*fspb.EmptyMessage, error) {
	if d.hang {
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	md, _ := metadata.FromIncomingContext(ctx)
	d.token <- strings.Join(md.Get("authorization"), ",")
	return &fspb.EmptyMessage{}, d.err
}

// serve starts d on listener; options may hold its credentials.
func (d *daemon) serve(t *testing.T, listener net.Listener, options ...grpc.ServerOption) {
	t.Helper()
	d.token = make(chan string, 10)
	server := grpc.NewServer(options...)
	serverpb.RegisterAdminServer(server, d)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// keepAlive makes one call and returns its error as a user would see it.
func keepAlive(t *testing.T, options adminapi.Options) error {
	t.Helper()
	if options.Timeout == 0 {
		options.Timeout = 10 * time.Second
	}
	api, err := adminapi.Dial(options)
	if err != nil {
		return err
	}
	defer api.Close()
	_, err = api.Admin.KeepAlive(t.Context(), &fspb.EmptyMessage{})
	return api.Explain(err)
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestAddresses(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1") // leads nowhere, and does not concern us
	d := &daemon{}
	tcp := listen(t, "tcp", "127.0.0.1:0")
	d.serve(t, tcp)
	_, port, err := net.SplitHostPort(tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"127.0.0.1:" + port, ":" + port, "0.0.0.0:" + port, "[::]:" + port, "localhost:" + port} {
		wantError(t, keepAlive(t, adminapi.Options{Address: address}), "")
	}

	path := filepath.Join(t.TempDir(), "admin")
	(&daemon{}).serve(t, listen(t, "unix", path))
	for _, address := range []string{"unix:" + path, "unix://" + path} {
		wantError(t, keepAlive(t, adminapi.Options{Address: address}), "")
	}
}

func TestExplanations(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"none":            {nil, ""},
		"unauthenticated": {status.Error(codes.Unauthenticated, "no token"), "use --token_file (no token)"},
		"denied":          {status.Error(codes.PermissionDenied, "not you"), "does not allow this: not you"},
		"unimplemented":   {status.Error(codes.Unimplemented, "x"), "is it an fs-admin?"},
		"full":            {status.Error(codes.ResourceExhausted, "queue is full"), "no room for this: queue is full"},
		"other":           {status.Error(codes.InvalidArgument, "bad ID"), "bad ID"},
	} {
		t.Run(name, func(t *testing.T) {
			listener := listen(t, "tcp", "127.0.0.1:0")
			(&daemon{err: c.err}).serve(t, listener)
			err := keepAlive(t, adminapi.Options{Address: listener.Addr().String()})
			wantError(t, err, c.want)
			if c.err != nil && !adminapi.Is(err, status.Code(c.err)) {
				t.Errorf("the code of %v is lost", err)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	listener := listen(t, "tcp", "127.0.0.1:0")
	listener.Close()
	err := keepAlive(t, adminapi.Options{Address: listener.Addr().String()})
	wantError(t, err, "cannot reach fs-admin at "+listener.Addr().String()+": is it running? Use --admin")
	if !adminapi.IsFatal(err) {
		t.Error("an unreachable daemon fails each further call too")
	}
}

func TestTimeout(t *testing.T) {
	listener := listen(t, "tcp", "127.0.0.1:0")
	(&daemon{hang: true}).serve(t, listener)
	err := keepAlive(t, adminapi.Options{Address: listener.Addr().String(), Timeout: 50 * time.Millisecond})
	wantError(t, err, "did not answer within 50ms")
}

// pemFiles writes the certificate and key of a test server. The certificate is its own authority and names 127.0.0.1 and
// example.com.
func pemFiles(t *testing.T) (pair tls.Certificate, certFile, keyFile string) {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	pair = server.TLS.Certificates[0]
	server.Close()
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return pair, certFile, keyFile
}

func TestTLS(t *testing.T) {
	pair, certFile, keyFile := pemFiles(t)
	listener, strict := listen(t, "tcp", "127.0.0.1:0"), listen(t, "tcp", "127.0.0.1:0")
	(&daemon{}).serve(t, listener, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}})))
	(&daemon{}).serve(t, strict, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert,
	})))
	address, strictAddress := listener.Addr().String(), strict.Addr().String()
	for name, c := range map[string]struct {
		options adminapi.Options
		want    string
	}{
		"authority":             {adminapi.Options{Address: address, CAFile: certFile}, ""},
		"name":                  {adminapi.Options{Address: address, CAFile: certFile, ServerName: "example.com"}, ""},
		"wrong name":            {adminapi.Options{Address: address, CAFile: certFile, ServerName: "example.org"}, "not example.org"},
		"system's authorities":  {adminapi.Options{Address: address, TLS: true}, "unknown authority"},
		"pinned":                {adminapi.Options{Address: address, TLS: true, Pinned: pair.Certificate[0]}, ""},
		"pinned another":        {adminapi.Options{Address: address, TLS: true, Pinned: []byte("other")}, "not the one in the components file"},
		"certificate":           {adminapi.Options{Address: strictAddress, CAFile: certFile, CertFile: certFile, KeyFile: keyFile}, ""},
		"no certificate":        {adminapi.Options{Address: strictAddress, CAFile: certFile}, "cannot reach fs-admin"},
		"key without":           {adminapi.Options{Address: address, KeyFile: keyFile}, "--cert_file and --key_file go together"},
		"missing authority":     {adminapi.Options{Address: address, CAFile: certFile + ".none"}, "--ca_file"},
		"authority that is key": {adminapi.Options{Address: address, CAFile: keyFile}, "no certificate in it"},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, keepAlive(t, c.options), c.want) })
	}
}

func TestToken(t *testing.T) {
	d := &daemon{}
	listener := listen(t, "tcp", "127.0.0.1:0")
	d.serve(t, listener)
	address := listener.Addr().String()
	write := func(content string) string {
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct {
		options adminapi.Options
		sent    string
		want    string
	}{
		"none":      {adminapi.Options{Address: address}, "", ""},
		"file":      {adminapi.Options{Address: address, TokenFile: write("secret\n")}, "Bearer secret", ""},
		"value":     {adminapi.Options{Address: address, Token: "other"}, "Bearer other", ""},
		"empty":     {adminapi.Options{Address: address, TokenFile: write("\n")}, "", "one line with the token"},
		"two lines": {adminapi.Options{Address: address, TokenFile: write("a\nb\n")}, "", "one line with the token"},
		"missing":   {adminapi.Options{Address: address, TokenFile: "/nonexistent"}, "", "--token_file"},
		"exposed":   {adminapi.Options{Address: "192.0.2.1:9000", Token: "x"}, "", "unencrypted: use --tls"},
	} {
		t.Run(name, func(t *testing.T) {
			wantError(t, keepAlive(t, c.options), c.want)
			if c.want == "" {
				if got := <-d.token; got != c.sent {
					t.Errorf("authorization %q, want %q", got, c.sent)
				}
			}
		})
	}
}
