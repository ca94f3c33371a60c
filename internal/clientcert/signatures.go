package clientcert

import (
	"crypto/x509"
	"errors"
	"fmt"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// MaxSignatures is how many signatures a contact may carry, and maxChain how many certificates one of them. The standard
// agent sends none; each costs a hash of the whole contact.
const (
	MaxSignatures = 16
	maxChain      = 16
)

// ErrSignature says that the signatures of a contact cannot be checked at all, which fails the contact.
var ErrSignature = errors.New("malformed contact signature")

// lastAlgorithm is the last of the algorithm numbers that count. They are those of crypto/x509, from 1 (MD2 with RSA) to
// 15 (RSA-PSS with SHA-512); Ed25519, which came later there, is not among them.
const lastAlgorithm = x509.SHA512WithRSAPSS

// VerifyAll checks the signatures of a contact, and tells for each whether it is valid. Too many of them, and those that
// Verify fails on, are ErrSignature.
func VerifyAll(contactData []byte, signatures []*fspb.Signature) (valid []bool, err error) {
	if len(signatures) > MaxSignatures {
		return nil, fmt.Errorf("%w: %d signatures, at most %d are allowed", ErrSignature, len(signatures), MaxSignatures)
	}
	valid = make([]bool, len(signatures))
	for i, signature := range signatures {
		if valid[i], err = Verify(contactData, signature); err != nil {
			return nil, err
		}
	}
	return valid, nil
}

// Verify checks a signature over contactData with the key of the first of its certificates. Whether that certificate means
// anything is for an authorizer to say.
//
// A wrong signature, an unknown algorithm and an empty list of certificates (G-01) are no errors but not valid. MD2, MD5
// and DSA are never valid. A certificate that cannot be parsed is ErrSignature.
func Verify(contactData []byte, signature *fspb.Signature) (valid bool, err error) {
	chain := signature.GetCertificate()
	if len(chain) > maxChain {
		return false, fmt.Errorf("%w: %d certificates, at most %d are allowed", ErrSignature, len(chain), maxChain)
	}
	var signer *x509.Certificate
	for i, der := range chain {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return false, fmt.Errorf("%w: certificate %d: %w", ErrSignature, i, err)
		}
		if i == 0 {
			signer = certificate
		}
	}
	algorithm := x509.SignatureAlgorithm(signature.GetAlgorithm())
	if signer == nil || algorithm <= x509.UnknownSignatureAlgorithm || algorithm > lastAlgorithm {
		return false, nil
	}
	return signer.CheckSignature(algorithm, contactData, signature.GetSignature()) == nil, nil
}
