// Package clientcert finds out who a client is: the public key behind a request, in each of the server's front-end modes,
// and the signatures that a contact may carry besides.
//
// In the default mode the key is that of the TLS client certificate, and the handshake proved its possession. In the
// others a load balancer ends TLS and the certificate comes in an HTTP header. Then there is no proof left that the server
// could check; it believes whoever can reach it, unless Config.TrustedSources says whom to believe (G-40).
//
// A certificate is only the envelope of a key. Agents sign their own, without names and with dates in the year 1, so
// nothing of it is verified: no chain, no dates, no purpose.
//
// The package is pure: it has no state, does no I/O and logs nothing. Everything it reads may be hostile; sizes are bounded
// before anything is decoded.
package clientcert

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"github.com/farspeak/farspeak/internal/identity"
)

// Reasons why a request names no client.
var (
	// ErrMissing says that there is no certificate, or no checksum where one is needed.
	ErrMissing = errors.New("no client certificate")
	// ErrMalformed says that what should be one certificate is something else.
	ErrMalformed = errors.New("malformed client certificate")
	// ErrChecksum says that the certificate is not the one whose checksum the load balancer saw.
	ErrChecksum = errors.New("client certificate does not match its checksum")
	// ErrUntrustedSource says that the request comes from an address whose headers are not believed.
	ErrUntrustedSource = errors.New("headers with client certificates are not accepted from this address")
)

// Mode is where a client's certificate comes from.
type Mode uint8

// The modes, named like the members of FrontendConfig.
const (
	// MTLS takes the certificate of the TLS connection.
	MTLS Mode = iota
	// HTTPSHeader takes the header that the load balancer sets.
	HTTPSHeader
	// HTTPSHeaderChecksum takes the header that the agent sets, and compares with the checksum that the balancer sets.
	HTTPSHeaderChecksum
	// CleartextHeader is HTTPSHeader on a listener without TLS.
	CleartextHeader
	// CleartextHeaderChecksum is HTTPSHeaderChecksum on a listener without TLS.
	CleartextHeaderChecksum
	// CleartextXFCC takes the certificate from the header that Envoy sets, on a listener without TLS.
	CleartextXFCC
)

// Cleartext says that the listener speaks HTTP without TLS.
func (m Mode) Cleartext() bool {
	return m == CleartextHeader || m == CleartextHeaderChecksum || m == CleartextXFCC
}

func (m Mode) hasChecksum() bool { return m == HTTPSHeaderChecksum || m == CleartextHeaderChecksum }

// Config describes an Extractor.
type Config struct {
	Mode Mode
	// CertificateHeader names the header with the certificate. Needed in all modes but MTLS.
	CertificateHeader string
	// ChecksumHeader names the header with the certificate's checksum. Needed in the modes that have one.
	ChecksumHeader string
	// TrustedSources are the addresses of the load balancers: a header from any other is refused. None means that
	// everybody is believed, as the original does. The MTLS mode does not look at them.
	TrustedSources []netip.Prefix
}

// Extractor finds the client behind a request. It is safe for concurrent use.
type Extractor struct {
	cfg Config
}

// New checks cfg and returns an Extractor.
func New(cfg Config) (*Extractor, error) {
	switch {
	case cfg.Mode > CleartextXFCC:
		return nil, fmt.Errorf("unknown front-end mode %d", cfg.Mode)
	case cfg.Mode != MTLS && cfg.CertificateHeader == "":
		return nil, errors.New("this front-end mode needs the name of the certificate header")
	case cfg.Mode.hasChecksum() && cfg.ChecksumHeader == "":
		return nil, errors.New("this front-end mode needs the name of the checksum header")
	}
	cfg.TrustedSources = slices.Clone(cfg.TrustedSources)
	for i, source := range cfg.TrustedSources {
		if !source.IsValid() {
			return nil, errors.New("a trusted source is no address range")
		}
		cfg.TrustedSources[i] = source.Masked()
	}
	return &Extractor{cfg: cfg}, nil
}

// Mode is the mode of the Extractor's Config.
func (x *Extractor) Mode() Mode { return x.cfg.Mode }

// Identity is a client as its certificate names it.
type Identity struct {
	ID  identity.ClientID
	Key crypto.PublicKey
	// SPKI is the key in PKIX DER, encoded anew: what the ID is computed from, and what the store compares.
	SPKI        []byte
	Certificate *x509.Certificate
}

// Extract finds the client of a request. connection is nil without TLS. remote is the address of who opened the TCP
// connection, not one that a PROXY header tells: it decides whether headers are believed.
//
// The error is one of ErrMissing, ErrMalformed, ErrChecksum and ErrUntrustedSource, with what was wrong.
func (x *Extractor) Extract(connection *tls.ConnectionState, header http.Header, remote netip.Addr) (*Identity, error) {
	var certificate *x509.Certificate
	var err error
	if x.cfg.Mode == MTLS {
		certificate, err = peerCertificate(connection)
	} else {
		certificate, err = x.headerCertificate(header, remote)
	}
	if err != nil {
		return nil, err
	}
	return identify(certificate)
}

func peerCertificate(connection *tls.ConnectionState) (*x509.Certificate, error) {
	if connection == nil || len(connection.PeerCertificates) == 0 {
		return nil, ErrMissing
	}
	if n := len(connection.PeerCertificates); n > 1 {
		return nil, fmt.Errorf("%w: a chain of %d, want 1", ErrMalformed, n)
	}
	return connection.PeerCertificates[0], nil
}

// maxSPKI bounds a key that is stored with the client, in bytes. An RSA key of 16384 bits takes 2.1 KB.
const maxSPKI = 4 << 10

// identify names the client that holds the certificate's key.
func identify(certificate *x509.Certificate) (*Identity, error) {
	switch certificate.PublicKey.(type) {
	case *ecdsa.PublicKey, *rsa.PublicKey, ed25519.PublicKey:
	default:
		return nil, fmt.Errorf("%w: unknown type of key", ErrMalformed)
	}
	spki, err := encodedKey(certificate)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(spki) > maxSPKI {
		return nil, fmt.Errorf("%w: a key of %d bytes, at most %d are allowed", ErrMalformed, len(spki), maxSPKI)
	}
	return &Identity{
		ID:          identity.ClientIDFromSPKI(spki),
		Key:         certificate.PublicKey,
		SPKI:        spki,
		Certificate: certificate,
	}, nil
}

// p256Key is what stands before the two coordinates in the DER encoding of a P-256 key.
const p256Key = "\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04"

// encodedKey is the key of a certificate in DER, encoded anew, since what stands in a certificate need not be DER. Agents have
// P-256 keys as a rule; one that stands there as it would be encoded is copied, which saves the check that it is on the curve:
// who parsed it made that.
func encodedKey(certificate *x509.Certificate) ([]byte, error) {
	raw := certificate.RawSubjectPublicKeyInfo
	if len(raw) == len(p256Key)+64 && string(raw[:len(p256Key)]) == p256Key {
		return bytes.Clone(raw), nil // a slice would keep the whole certificate
	}
	return x509.MarshalPKIXPublicKey(certificate.PublicKey)
}
