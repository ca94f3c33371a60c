package clientcert

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// maxHeader bounds a header before it is decoded, in bytes. A certificate takes 0.5 KB with a P-256 key and 7 KB with an
// RSA key of 16384 bits; Envoy's header may carry the certificates of several hops.
const maxHeader = 64 << 10

const (
	pemType  = "CERTIFICATE"
	pemBegin = "-----BEGIN "
)

// EncodeHeader is the value with which an agent sends its certificate in a header: PEM, percent-encoded like a segment of
// a URL's path.
func EncodeHeader(der []byte) string {
	return url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})))
}

// EncodeChecksum is the value with which a load balancer tells the certificate that it saw: SHA-256 of the DER in base64
// without the padding.
func EncodeChecksum(der []byte) string {
	sum := sha256.Sum256(der)
	return base64.RawStdEncoding.EncodeToString(sum[:])
}

func (x *Extractor) headerCertificate(header http.Header, remote netip.Addr) (*x509.Certificate, error) {
	if !x.trusts(remote) {
		return nil, fmt.Errorf("%w: %v", ErrUntrustedSource, remote)
	}
	value := header.Get(x.cfg.CertificateHeader) // the first of that name
	switch {
	case value == "":
		return nil, fmt.Errorf("%w: header %s is missing or empty", ErrMissing, x.cfg.CertificateHeader)
	case len(value) > maxHeader:
		return nil, fmt.Errorf("%w: a header of %d bytes, at most %d are allowed", ErrMalformed, len(value), maxHeader)
	}
	if x.cfg.Mode == CleartextXFCC {
		value = xfccCertificate(value)
	}
	certificate, err := decodeHeader(value)
	if err != nil {
		return nil, err
	}
	return certificate, x.compareChecksum(header, certificate)
}

// trusts says whether headers from this address are believed.
func (x *Extractor) trusts(remote netip.Addr) bool {
	if len(x.cfg.TrustedSources) == 0 {
		return true
	}
	remote = remote.Unmap().WithZone("")
	for _, source := range x.cfg.TrustedSources {
		if source.Contains(remote) {
			return true
		}
	}
	return false
}

// compareChecksum binds the certificate that the agent put into its header to the one that the load balancer saw.
func (x *Extractor) compareChecksum(header http.Header, certificate *x509.Certificate) error {
	if !x.cfg.Mode.hasChecksum() {
		return nil
	}
	switch header.Get(x.cfg.ChecksumHeader) {
	case "":
		return fmt.Errorf("%w: header %s is missing or empty", ErrMissing, x.cfg.ChecksumHeader)
	case EncodeChecksum(certificate.Raw):
		return nil
	}
	return ErrChecksum
}

// decodeHeader reads what EncodeHeader makes. A plus sign stands for itself.
func decodeHeader(value string) (*x509.Certificate, error) {
	text, err := url.PathUnescape(value)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	der, err := decodePEM(text)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return certificate, nil
}

// decodePEM wants one certificate and nothing around it but one line end after it. pem.Decode alone would skip what stands
// before the first block that it understands.
func decodePEM(text string) ([]byte, error) {
	if !strings.HasPrefix(text, pemBegin) || strings.Count(text, pemBegin) != 1 {
		return nil, fmt.Errorf("%w: want one PEM block", ErrMalformed)
	}
	block, rest := pem.Decode([]byte(text))
	switch {
	case block == nil:
		return nil, fmt.Errorf("%w: the PEM block cannot be decoded", ErrMalformed)
	case block.Type != pemType:
		return nil, fmt.Errorf("%w: a PEM block of type %.32q, want %s", ErrMalformed, block.Type, pemType)
	case len(rest) > 0:
		return nil, fmt.Errorf("%w: %d bytes after the PEM block", ErrMalformed, len(rest))
	}
	return block.Bytes, nil
}
