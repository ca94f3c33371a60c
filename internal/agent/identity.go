package agent

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
)

// Identity is who the agent is to the server: a key, the client ID it gives, and the certificate that presents it.
type Identity struct {
	ID          identity.ClientID
	certificate tls.Certificate
}

func newIdentity(key *ecdsa.PrivateKey) (*Identity, error) {
	id, err := identity.ClientIDFromKey(key.Public())
	if err != nil {
		return nil, err
	}
	der, err := selfSigned(key, id)
	if err != nil {
		return nil, fmt.Errorf("make client certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back client certificate: %w", err)
	}
	return &Identity{ID: id, certificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}, nil
}

// noExpiry is the date by which RFC 5280 says that a certificate has no well-defined end.
var noExpiry = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// selfSigned makes the certificate that presents a key. Servers look at nothing in it but the key, so it has no names and no
// usages. The original's has no dates at all, which come out as the year 1; ours ends later, since TLS stacks do not resume
// a session whose client certificate has expired.
func selfSigned(key *ecdsa.PrivateKey, id identity.ClientID) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{Organization: []string{id.String()}},
		NotAfter:     noExpiry,
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
}

// headerValue is the certificate as balancers carry it in an HTTP header: PEM, escaped as a path segment.
func (i *Identity) headerValue() string {
	block := &pem.Block{Type: "CERTIFICATE", Bytes: i.certificate.Certificate[0]}
	return url.PathEscape(string(pem.EncodeToMemory(block)))
}
