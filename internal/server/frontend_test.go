package server_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"testing"

	"github.com/farspeak/farspeak/internal/clientcert"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	certificateHeader = "X-Client-Certificate"
	checksumHeader    = "X-Client-Cert-Hash"
)

// frontend configures a front-end mode.
func frontend(t testing.TB, config clientcert.Config) func(*server.Config) {
	t.Helper()
	config.CertificateHeader = certificateHeader
	if config.Mode == clientcert.HTTPSHeaderChecksum || config.Mode == clientcert.CleartextHeaderChecksum {
		config.ChecksumHeader = checksumHeader
	}
	extractor, err := clientcert.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *server.Config) {
		c.Certificates = extractor
		if config.Mode.Cleartext() {
			c.TLS = nil
		}
	}
}

// balancer speaks to a server as a load balancer in a front-end mode does: with a certificate of its own, if any.
type balancer struct {
	t      testing.TB
	base   string
	client *http.Client
}

func newBalancer(t testing.TB, address string, mode clientcert.Mode) *balancer {
	t.Helper()
	b := &balancer{t: t, base: "https://" + address}
	if mode.Cleartext() {
		b.base = "http://" + address
	}
	transport := &http.Transport{TLSClientConfig: newTestAgent(t, address).tls()}
	t.Cleanup(transport.CloseIdleConnections)
	b.client = &http.Client{Transport: transport, Timeout: ioTimeout}
	return b
}

func (b *balancer) post(path string, header http.Header, body io.Reader) *http.Response {
	b.t.Helper()
	request, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.base+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	request.Header = header
	response, err := b.client.Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// Each front-end mode finds the client by the certificate in the header, and not by that of the balancer (G-40).
func TestFrontendModes(t *testing.T) {
	agent := newTestAgent(t, "")
	der := agent.certificate.Certificate[0]
	encoded := clientcert.EncodeHeader(der)
	xfcc := `By=spiffe://lb;Hash=ab;Cert="` + url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))) + `"`
	tests := map[string]struct {
		mode   clientcert.Mode
		header http.Header
	}{
		"https header":              {clientcert.HTTPSHeader, http.Header{certificateHeader: {encoded}}},
		"https header, checksum":    {clientcert.HTTPSHeaderChecksum, http.Header{certificateHeader: {encoded}, checksumHeader: {clientcert.EncodeChecksum(der)}}},
		"cleartext header":          {clientcert.CleartextHeader, http.Header{certificateHeader: {encoded}}},
		"cleartext header checksum": {clientcert.CleartextHeaderChecksum, http.Header{certificateHeader: {encoded}, checksumHeader: {clientcert.EncodeChecksum(der)}}},
		"cleartext xfcc":            {clientcert.CleartextXFCC, http.Header{certificateHeader: {xfcc}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := start(t, frontend(t, clientcert.Config{Mode: test.mode}))
			b := newBalancer(t, f.address, test.mode)
			if got := b.post("/message", test.header, bytes.NewReader(agent.wrap(manyMessages(1)))); got.StatusCode != http.StatusOK {
				t.Errorf("poll: status %d", got.StatusCode)
			}
			body, send := io.Pipe()
			go func() { _, _ = send.Write(agent.first(&fspb.ContactData{})) }()
			if got := b.post("/streaming-message", test.header, body); got.StatusCode != http.StatusOK {
				t.Errorf("stream: status %d", got.StatusCode)
			} else if wire.HasFeature(got.Header, wire.FeatureSharedTickets) {
				t.Error("the server speaks for tickets that are the balancer's")
			}
			if known, err := f.store.GetClients(t.Context(), []identity.ClientID{agent.id}); err != nil || len(known) != 1 {
				t.Errorf("known clients: %v, %v", known, err)
			}
			if got := b.post("/message", nil, bytes.NewReader(agent.wrap(&fspb.ContactData{}))); got.StatusCode != http.StatusBadRequest {
				t.Errorf("poll without header: status %d, want 400", got.StatusCode)
			}
			if got := b.post("/streaming-message", nil, nil); got.StatusCode != http.StatusBadRequest {
				t.Errorf("stream without header: status %d, want 400", got.StatusCode)
			}
		})
	}
}

// A certificate that is not the one whose checksum the balancer saw is refused.
func TestFrontendChecksumMismatch(t *testing.T) {
	agent, other := newTestAgent(t, ""), newTestAgent(t, "")
	f := start(t, frontend(t, clientcert.Config{Mode: clientcert.CleartextHeaderChecksum}))
	header := http.Header{
		certificateHeader: {clientcert.EncodeHeader(agent.certificate.Certificate[0])},
		checksumHeader:    {clientcert.EncodeChecksum(other.certificate.Certificate[0])},
	}
	b := newBalancer(t, f.address, clientcert.CleartextHeaderChecksum)
	if got := b.post("/message", header, bytes.NewReader(agent.wrap(&fspb.ContactData{}))); got.StatusCode != http.StatusBadRequest {
		t.Errorf("status %d, want 400", got.StatusCode)
	}
}

// Headers from an address that is not a balancer's are not believed (G-40).
func TestFrontendTrustedSources(t *testing.T) {
	agent := newTestAgent(t, "")
	f := start(t, frontend(t, clientcert.Config{
		Mode: clientcert.CleartextHeader, TrustedSources: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
	}))
	header := http.Header{certificateHeader: {clientcert.EncodeHeader(agent.certificate.Certificate[0])}}
	b := newBalancer(t, f.address, clientcert.CleartextHeader)
	if got := b.post("/message", header, bytes.NewReader(agent.wrap(&fspb.ContactData{}))); got.StatusCode != http.StatusBadRequest {
		t.Errorf("status %d, want 400", got.StatusCode)
	}
}

// clientOf is the client that holds a certificate.
func clientOf(der []byte) (identity.ClientID, error) {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return identity.ClientID{}, err
	}
	return identity.ClientIDFromKey(certificate.PublicKey)
}
