package clientcert

import (
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Bounds of the signatures of a contact. The standard agent sends none.
const (
	// MaxSignatures is how many a contact may carry, and maxChain how many certificates one of them.
	MaxSignatures = 16
	maxChain      = 16
	// maxCertificate bounds one certificate in bytes: parsed, a hostile one takes many times its size.
	maxCertificate = 64 << 10
	// maxRSABits bounds the key of a signature that is checked, as crypto/tls does: the work grows with the square of the
	// size, and a key that fills a certificate keeps a core busy for seconds. crypto/rsa bounds the exponent, by 31 bits.
	maxRSABits = 8192
)

// ErrSignature says that the signatures of a contact cannot be checked at all, which fails the contact.
var ErrSignature = errors.New("malformed contact signature")

// lastAlgorithm is the last of the algorithm numbers that count. They are those of crypto/x509, from 1 (MD2 with RSA) to
// 15 (RSA-PSS with SHA-512); Ed25519, which came later there, is not among them.
const lastAlgorithm = x509.SHA512WithRSAPSS

// Signature is one signature of a contact, parsed and not checked: a check costs a hash of the whole contact and work
// with a key that the peer chose, so only who needs its outcome asks for it.
type Signature struct {
	signer    *x509.Certificate // nil without certificates
	algorithm x509.SignatureAlgorithm
	bytes     []byte
}

// ParseSignatures parses the signatures of a contact. Too many of them, and certificates that are too many, too large or
// cannot be parsed, are ErrSignature.
func ParseSignatures(signatures []*fspb.Signature) ([]Signature, error) {
	if len(signatures) > MaxSignatures {
		return nil, fmt.Errorf("%w: %d signatures, at most %d are allowed", ErrSignature, len(signatures), MaxSignatures)
	}
	parsed := make([]Signature, len(signatures))
	for i, signature := range signatures {
		signer, err := parseChain(signature.GetCertificate())
		if err != nil {
			return nil, err
		}
		parsed[i] = Signature{signer, x509.SignatureAlgorithm(signature.GetAlgorithm()), signature.GetSignature()}
	}
	return parsed, nil
}

// parseChain returns the first certificate, which is the signer's. The others only have to be certificates.
func parseChain(chain [][]byte) (signer *x509.Certificate, err error) {
	if len(chain) > maxChain {
		return nil, fmt.Errorf("%w: %d certificates, at most %d are allowed", ErrSignature, len(chain), maxChain)
	}
	for i, der := range chain {
		if len(der) > maxCertificate {
			return nil, fmt.Errorf("%w: certificate %d has %d bytes, at most %d are allowed", ErrSignature, i, len(der), maxCertificate)
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: certificate %d: %w", ErrSignature, i, err)
		}
		if i == 0 {
			signer = certificate
		}
	}
	return signer, nil
}

// Valid checks the signature over contactData with the key of the first of its certificates. Whether that certificate means
// anything is for an authorizer to say.
//
// An unknown algorithm, an empty list of certificates (G-01) and an RSA key of more than 8192 bits are never valid, nor are
// MD2, MD5 and DSA.
func (s Signature) Valid(contactData []byte) bool {
	if s.signer == nil || s.algorithm <= x509.UnknownSignatureAlgorithm || s.algorithm > lastAlgorithm {
		return false
	}
	if key, ok := s.signer.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSABits {
		return false
	}
	return s.signer.CheckSignature(s.algorithm, contactData, s.bytes) == nil
}
