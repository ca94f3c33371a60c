package configurator

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"time"
	"unicode/utf8"
)

// serverLife is how long a new server certificate is valid.
const serverLife = 365 * 24 * time.Hour

// serverPair is the server's certificate chain and key as PEM.
type serverPair struct {
	certs, key []byte
}

// serverCertificate makes the server's certificate if it does not exist, and reads it with its key in any case.
func (g *generator) serverCertificate(ca *authority) (*serverPair, error) {
	certPath, keyPath := g.input.GetServerCertFile(), g.input.GetServerCertKeyFile()
	switch _, err := os.Stat(certPath); {
	case errors.Is(err, fs.ErrNotExist):
		if err := g.newServerCertificate(ca); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, fmt.Errorf("server_cert_file: %w", err)
	default:
		g.report.Kept = append(g.report.Kept, certPath, keyPath)
	}
	var pair serverPair
	var err error
	if pair.certs, err = os.ReadFile(certPath); err != nil {
		return nil, fmt.Errorf("server_cert_file: %w", err)
	}
	if pair.key, err = os.ReadFile(keyPath); err != nil {
		return nil, fmt.Errorf("server_cert_key_file: %w", err)
	}
	parsed, err := tls.X509KeyPair(pair.certs, pair.key)
	if err != nil {
		return nil, fmt.Errorf("server_cert_file %s and server_cert_key_file %s are not a certificate and its key: %w;"+
			" remove the certificate to have both made anew", certPath, keyPath, err)
	}
	if !utf8.Valid(pair.certs) || !utf8.Valid(pair.key) {
		return nil, fmt.Errorf("server_cert_file %s or server_cert_key_file %s is not UTF-8: keep only the PEM blocks", certPath, keyPath)
	}
	g.warnReadable(keyPath)
	return &pair, g.checkServerCertificate(ca, parsed)
}

func (g *generator) newServerCertificate(ca *authority) error {
	certPath, keyPath := g.input.GetServerCertFile(), g.input.GetServerCertKeyFile()
	if ca.signer == nil {
		return fmt.Errorf("server_cert_file %s does not exist and cannot be made without the authority's key: %w;"+
			" provide the key, or a server certificate", certPath, ca.signerErr)
	}
	template, err := g.template(g.input.GetConfigurationName()+" Fleetspeak Server", serverLife)
	if err != nil {
		return err
	}
	hosts, err := publicHosts(g.input.GetPublicHostPort())
	if err != nil {
		return err
	}
	if g.opts.LeafServerCertificate {
		template.IsCA = false
		template.KeyUsage = x509.KeyUsageDigitalSignature
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if name := g.input.GetServerName(); name != "" && !slices.Contains(hosts, name) {
			hosts = append(hosts, name)
		}
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	cert, err := sign(template, ca.issuer, key.Public(), ca.signer)
	if err != nil {
		return fmt.Errorf("make the server's certificate: %w", err)
	}
	return g.writePair("server_cert", certPath, keyPath, cert, key)
}

// publicHosts returns the hosts that clients connect to, in order.
func publicHosts(addresses []string) ([]string, error) {
	var hosts []string
	for _, address := range addresses {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("public_host_port %q: %w; write host:port, for example \"fleet.example.com:443\" or \"[::1]:443\"", address, err)
		}
		hosts = append(hosts, host)
	}
	return hosts, nil
}

// checkServerCertificate warns of a certificate that clients refuse, now or soon. The run goes on: the original takes
// such a certificate too.
func (g *generator) checkServerCertificate(ca *authority, pair tls.Certificate) error {
	path, leaf := g.input.GetServerCertFile(), pair.Leaf
	g.warnExpiry(path, leaf, "remove the file and run this again to have a new one made")

	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, cert := range ca.certs {
		roots.AddCert(cert)
	}
	for _, der := range pair.Certificate[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("server_cert_file %s: %w", path, err)
		}
		intermediates.AddCert(cert)
	}
	// Expiry has a warning of its own; here it would only repeat that one.
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: leaf.NotBefore})
	if err != nil {
		g.warn("%s: clients will refuse the certificate: %v", path, err)
	}
	g.checkNames(path, leaf)
	return nil
}

// checkNames warns of names under which clients would look for the server in vain.
func (g *generator) checkNames(path string, leaf *x509.Certificate) {
	names := []string{g.input.GetServerName()}
	if names[0] == "" {
		// An address that does not parse concerns only those who make a certificate for it.
		names, _ = publicHosts(g.input.GetPublicHostPort())
	}
	for _, name := range names {
		if err := leaf.VerifyHostname(name); err != nil {
			g.warn("%s: clients that look for %q will refuse the certificate: %v; the certificate needs that name,"+
				" remove it to have one made for every host of public_host_port", path, name, err)
		}
	}
	if len(g.input.GetPublicHostPort()) == 0 {
		g.warn("public_host_port is empty: clients refuse a configuration that names no server")
	}
}
