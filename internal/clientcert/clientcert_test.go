package clientcert_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/farspeak/farspeak/internal/clientcert"
)

// recorded is an agent of the original: its certificate, with dates in the year 1, and what its server made of it.
type recorded struct {
	Certificate hexBytes `json:"certificate_der"`
	SPKI        hexBytes `json:"spki_der"`
	ClientID    string   `json:"client_id"`
}

type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

func readRecorded(tb testing.TB) []recorded {
	tb.Helper()
	text, err := os.ReadFile("testdata/ids.json")
	if err != nil {
		tb.Fatal(err)
	}
	var ids struct {
		ClientIDs []recorded `json:"client_ids"`
	}
	if err := json.Unmarshal(text, &ids); err != nil || len(ids.ClientIDs) == 0 {
		tb.Fatalf("%d identities, error %v", len(ids.ClientIDs), err)
	}
	return ids.ClientIDs
}

func mustNew(tb testing.TB, cfg clientcert.Config) *clientcert.Extractor {
	tb.Helper()
	x, err := clientcert.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return x
}

// mustCertify makes a self-signed certificate as agents do.
func mustCertify(tb testing.TB, key crypto.Signer) []byte {
	tb.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"client"}}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func mustKey[K any](tb testing.TB) func(K, error) K {
	return func(key K, err error) K {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return key
	}
}

func parsed(tb testing.TB, ders ...[]byte) *tls.ConnectionState {
	tb.Helper()
	state := &tls.ConnectionState{}
	for _, der := range ders {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			tb.Fatal(err)
		}
		state.PeerCertificates = append(state.PeerCertificates, certificate)
	}
	return state
}

const (
	certHeader     = "Client-Certificate"
	checksumHeader = "X-Client-Cert-Hash"
)

var (
	balancer = netip.MustParseAddr("10.1.2.3")
	stranger = netip.MustParseAddr("192.0.2.1")
)

// In each mode, each recorded agent is recognised as the original's server does it.
func TestRecordedAgents(t *testing.T) {
	for _, agent := range readRecorded(t) {
		value := clientcert.EncodeHeader(agent.Certificate)
		withChecksum := http.Header{
			certHeader:     {value, "only the first counts"},
			checksumHeader: {clientcert.EncodeChecksum(agent.Certificate), "only the first counts"},
		}
		xfcc := http.Header{certHeader: {`By=spiffe://lb;Hash=00;Cert="` + value + `";Subject="O=a,b;c"`}}
		for _, test := range []struct {
			mode   clientcert.Mode
			state  *tls.ConnectionState
			header http.Header
		}{
			{clientcert.MTLS, parsed(t, agent.Certificate), nil},
			{clientcert.HTTPSHeader, &tls.ConnectionState{}, withChecksum},
			{clientcert.HTTPSHeaderChecksum, &tls.ConnectionState{}, withChecksum},
			{clientcert.CleartextHeader, nil, withChecksum},
			{clientcert.CleartextHeaderChecksum, nil, withChecksum},
			{clientcert.CleartextXFCC, nil, xfcc},
			{clientcert.CleartextXFCC, nil, withChecksum},
		} {
			x := mustNew(t, clientcert.Config{Mode: test.mode, CertificateHeader: certHeader, ChecksumHeader: checksumHeader})
			got, err := x.Extract(test.state, test.header, stranger)
			if err != nil {
				t.Errorf("mode %d: %v", test.mode, err)
				continue
			}
			if got.ID.String() != agent.ClientID || !bytes.Equal(got.SPKI, agent.SPKI) {
				t.Errorf("mode %d: client %v with key %x, want %s", test.mode, got.ID, got.SPKI, agent.ClientID)
			}
			if !bytes.Equal(got.Certificate.Raw, agent.Certificate) || got.Key != got.Certificate.PublicKey {
				t.Errorf("mode %d: other certificate or key", test.mode)
			}
		}
	}
}

func TestKindsOfKeys(t *testing.T) {
	ec := mustKey[*ecdsa.PrivateKey](t)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{
		"P-256":   ec(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		"P-384":   ec(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"P-521":   ec(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)),
		"RSA":     mustKey[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048)),
		"Ed25519": edwards,
	} {
		want, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		got, err := mustNew(t, clientcert.Config{}).Extract(parsed(t, mustCertify(t, key)), nil, netip.Addr{})
		if err != nil || !bytes.Equal(got.SPKI, want) || got.ID.IsNil() {
			t.Errorf("%s: %+v, error %v", name, got, err)
		}
	}
}

func TestTLSCertificates(t *testing.T) {
	der := readRecorded(t)[0].Certificate
	unknown := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}
	huge := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{
		{PublicKey: &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 40000), E: 65537}},
	}}
	// Headers do not matter in this mode, however good they look.
	header := http.Header{certHeader: {clientcert.EncodeHeader(der)}}
	for name, test := range map[string]struct {
		state *tls.ConnectionState
		want  error
	}{
		"no TLS":          {nil, clientcert.ErrMissing},
		"no certificate":  {parsed(t), clientcert.ErrMissing},
		"two":             {parsed(t, der, der), clientcert.ErrMalformed},
		"unknown key":     {unknown, clientcert.ErrMalformed},
		"enormous key":    {huge, clientcert.ErrMalformed},
		"one certificate": {parsed(t, der), nil},
	} {
		x := mustNew(t, clientcert.Config{CertificateHeader: certHeader, TrustedSources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
		got, err := x.Extract(test.state, header, stranger)
		if !errors.Is(err, test.want) || (got == nil) != (test.want != nil) {
			t.Errorf("%s: %v, error %v, want %v", name, got, err, test.want)
		}
	}
}

func TestNewRefusesBadConfig(t *testing.T) {
	for name, cfg := range map[string]clientcert.Config{
		"unknown mode":       {Mode: 6},
		"no header":          {Mode: clientcert.CleartextXFCC},
		"no checksum header": {Mode: clientcert.HTTPSHeaderChecksum, CertificateHeader: certHeader},
		"invalid range":      {TrustedSources: []netip.Prefix{{}}},
	} {
		if x, err := clientcert.New(cfg); err == nil || x != nil {
			t.Errorf("%s: %v, error %v", name, x, err)
		}
	}
	for mode, cleartext := range []bool{false, false, false, true, true, true} {
		x := mustNew(t, clientcert.Config{Mode: clientcert.Mode(mode), CertificateHeader: "a", ChecksumHeader: "b"})
		if x.Mode().Cleartext() != cleartext {
			t.Errorf("mode %d: cleartext %v", mode, !cleartext)
		}
	}
}

func TestTrustedSources(t *testing.T) { // G-40
	value := clientcert.EncodeHeader(readRecorded(t)[0].Certificate)
	for _, mode := range []clientcert.Mode{clientcert.HTTPSHeader, clientcert.CleartextXFCC} {
		x := mustNew(t, clientcert.Config{
			Mode:              mode,
			CertificateHeader: certHeader,
			TrustedSources:    []netip.Prefix{netip.MustParsePrefix("10.9.9.9/8"), netip.MustParsePrefix("fe80::/10")},
		})
		for _, test := range []struct {
			remote netip.Addr
			want   error
		}{
			{balancer, nil},
			{netip.MustParseAddr("::ffff:10.1.2.3"), nil},
			{netip.MustParseAddr("fe80::1%eth0"), nil},
			{stranger, clientcert.ErrUntrustedSource},
			{netip.Addr{}, clientcert.ErrUntrustedSource},
		} {
			if _, err := x.Extract(nil, http.Header{certHeader: {value}}, test.remote); !errors.Is(err, test.want) {
				t.Errorf("from %v: error %v, want %v", test.remote, err, test.want)
			}
		}
	}
}

func TestChecksum(t *testing.T) {
	agents := readRecorded(t)
	right := clientcert.EncodeChecksum(agents[0].Certificate)
	x := mustNew(t, clientcert.Config{
		Mode: clientcert.CleartextHeaderChecksum, CertificateHeader: certHeader, ChecksumHeader: checksumHeader,
	})
	for name, test := range map[string]struct {
		checksum []string
		want     error
	}{
		"right":            {[]string{right}, nil},
		"missing":          {nil, clientcert.ErrMissing},
		"empty":            {[]string{"", right}, clientcert.ErrMissing},
		"padded":           {[]string{right + "="}, clientcert.ErrChecksum},
		"of another":       {[]string{clientcert.EncodeChecksum(agents[1].Certificate)}, clientcert.ErrChecksum},
		"right but second": {[]string{"x", right}, clientcert.ErrChecksum},
		"with a space":     {[]string{right + " "}, clientcert.ErrChecksum},
	} {
		header := http.Header{certHeader: {clientcert.EncodeHeader(agents[0].Certificate)}, checksumHeader: test.checksum}
		if got, err := x.Extract(nil, header, stranger); !errors.Is(err, test.want) || (got == nil) != (test.want != nil) {
			t.Errorf("%s: %v, error %v, want %v", name, got, err, test.want)
		}
	}
	if got := clientcert.EncodeChecksum([]byte("abc")); got != "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0" {
		t.Errorf("checksum of abc is %s", got)
	}
}

func TestHeaderEncoding(t *testing.T) {
	agent := readRecorded(t)[0]
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: agent.Certificate}))
	value := clientcert.EncodeHeader(agent.Certificate)
	if !strings.HasPrefix(value, "-----BEGIN%20CERTIFICATE-----%0A") || strings.ContainsAny(value, "/ \n") {
		t.Errorf("encoded: %s", value)
	}
	if strings.Count(value, "+") != strings.Count(text, "+") || strings.Count(text, "+") == 0 {
		t.Error("a plus sign does not stay itself")
	}
	other := strings.ReplaceAll(text, "CERTIFICATE", "PUBLIC KEY")
	broken := strings.Replace(text, "MII", "!!!", 1)
	for _, test := range []struct {
		name, value string
		want        error
	}{
		{"our own", value, nil},
		{"all escaped", strings.ReplaceAll(url.QueryEscape(text), "+", "%20"), nil},
		{"without final line end", url.PathEscape(strings.TrimSuffix(text, "\n")), nil},
		{"CR LF", url.PathEscape(strings.ReplaceAll(text, "\n", "\r\n")), nil},
		{"missing", "", clientcert.ErrMissing},
		{"plus for space", strings.ReplaceAll(value, "%20", "+"), clientcert.ErrMalformed},
		{"bad escape", value + "%zz", clientcert.ErrMalformed},
		{"cut escape", value + "%0", clientcert.ErrMalformed},
		{"second line end", value + "%0A", clientcert.ErrMalformed},
		{"second block", value + value, clientcert.ErrMalformed},
		{"text before", "x%0A" + value, clientcert.ErrMalformed},
		{"line end before", "%0A" + value, clientcert.ErrMalformed},
		{"broken block before", url.PathEscape(broken) + value, clientcert.ErrMalformed},
		{"other type", url.PathEscape(other), clientcert.ErrMalformed},
		{"broken base64", url.PathEscape(broken), clientcert.ErrMalformed},
		{"cut short", value[:len(value)-20], clientcert.ErrMalformed},
		{"no certificate inside", clientcert.EncodeHeader([]byte("x")), clientcert.ErrMalformed},
		{"bytes after the certificate", clientcert.EncodeHeader(append(bytes.Clone(agent.Certificate), 0)), clientcert.ErrMalformed},
		{"enormous", value + strings.Repeat("%0A", 30000), clientcert.ErrMalformed},
		{"no PEM", "x", clientcert.ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			x := mustNew(t, clientcert.Config{Mode: clientcert.HTTPSHeader, CertificateHeader: strings.ToLower(certHeader)})
			got, err := x.Extract(nil, http.Header{certHeader: {test.value}}, stranger)
			if !errors.Is(err, test.want) || (got == nil) != (test.want != nil) {
				t.Fatalf("%v, error %v, want %v", got, err, test.want)
			}
			if got != nil && got.ID.String() != agent.ClientID {
				t.Errorf("client %v", got.ID)
			}
			if err != nil && len(err.Error()) > 300 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}
