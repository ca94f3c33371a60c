package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
)

// clientIDBytes is the length of a client ID: the head of the SHA-256 of the key's PKIX DER.
const clientIDBytes = 8

// Key is one identity: a private key and the certificate that an agent makes for it.
type Key struct {
	certificate []byte // DER
	private     *ecdsa.PrivateKey
	id          [clientIDBytes]byte
}

// NewKey draws an identity.
func NewKey() (*Key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("drawing a key: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	k := &Key{private: private}
	digest := sha256.Sum256(spki)
	copy(k.id[:], digest[:])
	k.certificate, err = k.selfSigned()
	return k, err
}

// selfSigned makes the certificate of the reference agent: serial 1, the client ID as organization, no names, no key
// usage, and no dates, which come out as the year 1.
func (k *Key) selfSigned() ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{Organization: []string{k.String()}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.private.PublicKey, k.private)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	return der, nil
}

// ID is the client ID, 8 bytes.
func (k *Key) ID() []byte { return k.id[:] }

// String is the client ID in hex.
func (k *Key) String() string { return hex.EncodeToString(k.id[:]) }

// MessageID is the ID that a server gives a message of this client.
func (k *Key) MessageID(service string, sourceMessageID []byte) []byte {
	return MessageID(k.id[:], service, sourceMessageID)
}

// MessageID is the ID that a server gives a client's message.
func MessageID(clientID []byte, service string, sourceMessageID []byte) []byte {
	h := sha256.New()
	h.Write(clientID)
	h.Write([]byte{0})
	h.Write([]byte(service))
	h.Write([]byte{0})
	h.Write(sourceMessageID)
	return h.Sum(nil)
}

// tlsCertificate presents the certificate copies times: 1 is what agents do, anything else is an offence.
func (k *Key) tlsCertificate(copies int) *tls.Certificate {
	chain := make([][]byte, copies)
	for i := range chain {
		chain[i] = k.certificate
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: k.private}
}

// HeaderValue is the certificate as agents write it into an HTTP header for a balancer that ends TLS.
func (k *Key) HeaderValue() string { return HeaderValue(k.certificate) }

// HeaderValue encodes the DER of a certificate for an HTTP header: PEM, escaped as a path segment.
func HeaderValue(certificate []byte) string {
	return url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})))
}
