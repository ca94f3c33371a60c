package configurator

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
	"unicode/utf8"
)

// authorityLife is how long a new CA certificate is valid.
const authorityLife = 3650 * 24 * time.Hour

// authority is the certificate authority of the installation.
type authority struct {
	pem   []byte              // the whole file, as the clients get it
	certs []*x509.Certificate // all that are in it, at least one

	signer    crypto.Signer     // nil when the key cannot be used
	issuer    *x509.Certificate // the one of certs that signer belongs to
	signerErr error             // why there is no signer
}

// authority reads the CA, or makes it if it does not exist.
func (g *generator) authority() (*authority, error) {
	path := g.input.GetTrustedCertFile()
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return g.newAuthority()
	case err != nil:
		return nil, fmt.Errorf("trusted_cert_file: %w", err)
	}
	ca := &authority{pem: text}
	if ca.certs, err = g.parseBundle(text); err != nil {
		return nil, fmt.Errorf("trusted_cert_file %s: %w", path, err)
	}
	g.report.Kept = append(g.report.Kept, path)
	if err := g.loadSigner(ca); err != nil {
		return nil, err
	}
	for _, cert := range ca.certs {
		g.warnExpiry(path, cert, "roll out a new authority beside it: clients accept several certificates in one file")
	}
	return ca, nil
}

// parseBundle reads one or more certificates. The first must be sound; clients skip others that are not.
func (g *generator) parseBundle(text []byte) ([]*x509.Certificate, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("the text is not UTF-8: keep only the PEM blocks")
	}
	var certs []*x509.Certificate
	for rest := bytes.Clone(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != pemCertificate && len(certs) == 0 {
			return nil, fmt.Errorf("the first PEM block is %s: put a %s first", block.Type, pemCertificate)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err == nil:
			certs = append(certs, cert)
		case len(certs) == 0:
			return nil, fmt.Errorf("the first certificate: %w", err)
		default:
			g.warn("%s: a PEM block after the first is no certificate, clients ignore it: %v", g.input.GetTrustedCertFile(), err)
		}
	}
	if len(certs) == 0 {
		return nil, errors.New("no PEM block in it: use a PEM certificate, or remove the file to have one made")
	}
	return certs, nil
}

// loadSigner reads the CA's key. One that cannot be read is no error by itself: with a server certificate at hand nobody
// needs it, and it may well be kept on another machine. One that is there has to be sound.
func (g *generator) loadSigner(ca *authority) error {
	path := g.input.GetTrustedCertKeyFile()
	if path == "" {
		ca.signerErr = errors.New("field trusted_cert_key_file is not set")
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		ca.signerErr = fmt.Errorf("trusted_cert_key_file: %w", err)
		return nil
	}
	key, err := parseKey(text)
	if err != nil {
		return fmt.Errorf("trusted_cert_key_file %s: %w", path, err)
	}
	g.report.Kept = append(g.report.Kept, path)
	g.warnReadable(path)
	for _, cert := range ca.certs {
		if samePublicKey(cert.PublicKey, key.Public()) {
			ca.signer, ca.issuer = key, cert
			return nil
		}
	}
	ca.signerErr = fmt.Errorf("trusted_cert_key_file %s is not the key of a certificate in %s", path, g.input.GetTrustedCertFile())
	g.warn("%v", ca.signerErr)
	return nil
}

// newAuthority makes a self-signed CA.
func (g *generator) newAuthority() (*authority, error) {
	certPath, keyPath := g.input.GetTrustedCertFile(), g.input.GetTrustedCertKeyFile()
	if keyPath == "" {
		return nil, fmt.Errorf("trusted_cert_file %s does not exist, and to make it field trusted_cert_key_file is required:"+
			" name the file for the authority's private key, or correct trusted_cert_file", certPath)
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template, err := g.template(g.input.GetConfigurationName()+" Fleetspeak CA", authorityLife)
	if err != nil {
		return nil, err
	}
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the authority's certificate: %w", err)
	}
	if err := g.saveOldKey(keyPath); err != nil {
		return nil, err
	}
	if err := g.writePair("trusted_cert", certPath, keyPath, cert, key); err != nil {
		return nil, err
	}
	return &authority{pem: encodeCertificate(cert), certs: []*x509.Certificate{cert}, signer: key, issuer: cert}, nil
}

// saveOldKey keeps a copy of a CA key that is about to be replaced: when only the name of the certificate file was
// mistyped, that key is the one that a whole fleet trusts.
func (g *generator) saveOldKey(path string) error {
	old, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("trusted_cert_key_file: %w", err)
	}
	if err := g.write("trusted_cert_key_file", path+".old", old, keyMode); err != nil {
		return err
	}
	g.warn("%s held a key although %s did not exist; the key is replaced, the old one is in %s.old", path, g.input.GetTrustedCertFile(), path)
	return nil
}

// template is what CA and server certificate have in common.
func (g *generator) template(commonName string, life time.Duration) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             g.opts.Now,
		NotAfter:              g.opts.Now.Add(life),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}, nil
}
