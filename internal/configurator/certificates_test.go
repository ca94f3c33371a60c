package configurator_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/farspeak/farspeak/internal/configurator"
)

const day = 24 * time.Hour

var maxSerial = new(big.Int).Lsh(big.NewInt(1), 128)

// checkCommon checks what the CA's and the server's certificate have in common.
func checkCommon(t *testing.T, cert *x509.Certificate, commonName string, life time.Duration) {
	t.Helper()
	if cert.Version != 3 {
		t.Errorf("version %d, want 3", cert.Version)
	}
	if cert.SerialNumber.Sign() <= 0 || cert.SerialNumber.Cmp(maxSerial) >= 0 || cert.SerialNumber.BitLen() < 64 {
		t.Errorf("serial %v, want a random positive number below 2^128", cert.SerialNumber)
	}
	if got, want := cert.Subject.String(), "CN="+commonName; got != want {
		t.Errorf("subject %q, want %q", got, want)
	}
	if !cert.NotBefore.Equal(now) || cert.NotAfter.Sub(cert.NotBefore) != life {
		t.Errorf("valid from %v to %v, want from %v on for %v", cert.NotBefore, cert.NotAfter, now, life)
	}
	if want := x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign; cert.KeyUsage != want {
		t.Errorf("key usage %b, want %b", cert.KeyUsage, want)
	}
	if len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) != 0 {
		t.Errorf("extended key usages %v, want none", cert.ExtKeyUsage)
	}
	if !cert.BasicConstraintsValid || !cert.IsCA || cert.MaxPathLen != -1 {
		t.Errorf("basic constraints: valid %t, CA %t, path length %d; want a CA without path length",
			cert.BasicConstraintsValid, cert.IsCA, cert.MaxPathLen)
	}
	if len(cert.SubjectKeyId) != 20 {
		t.Errorf("subject key identifier of %d bytes, want 20", len(cert.SubjectKeyId))
	}
}

// Object identifiers of certificate extensions.
const (
	oidSubjectKeyID     = "2.5.29.14"
	oidKeyUsage         = "2.5.29.15"
	oidSAN              = "2.5.29.17"
	oidBasicConstraints = "2.5.29.19"
	oidAuthorityKeyID   = "2.5.29.35"
)

// extensions maps the extensions of a certificate to whether they are critical.
func extensions(cert *x509.Certificate) map[string]bool {
	found := map[string]bool{}
	for _, e := range cert.Extensions {
		found[asn1.ObjectIdentifier(e.Id).String()] = e.Critical
	}
	return found
}

func TestGeneratedAuthority(t *testing.T) {
	input, _ := newInput(t)
	generate(t, input)
	ca := readCertificate(t, input.TrustedCertFile)

	checkCommon(t, ca, "Example Fleetspeak CA", 3650*day)
	if !bytes.Equal(ca.RawIssuer, ca.RawSubject) {
		t.Errorf("issuer %v is not the subject", ca.Issuer)
	}
	want := map[string]bool{oidKeyUsage: true, oidBasicConstraints: true, oidSubjectKeyID: false}
	if diff := cmp.Diff(want, extensions(ca)); diff != "" {
		t.Errorf("extensions and whether they are critical (-want +got):\n%s", diff)
	}
	if ca.SignatureAlgorithm != x509.ECDSAWithSHA256 {
		t.Errorf("signature %v, want ECDSA with SHA-256", ca.SignatureAlgorithm)
	}
	if err := ca.CheckSignatureFrom(ca); err != nil {
		t.Errorf("not self-signed: %v", err)
	}
	key := readECKey(t, input.TrustedCertKeyFile)
	if key.Curve != elliptic.P256() || !key.PublicKey.Equal(ca.PublicKey) {
		t.Errorf("key on %v, want the P-256 key of the certificate", key.Curve.Params().Name)
	}
}

func TestGeneratedServerCertificate(t *testing.T) {
	input, _ := newInput(t)
	input.ServerName = "not-added.example.com"
	generate(t, input)
	ca, cert := readCertificate(t, input.TrustedCertFile), readCertificate(t, input.ServerCertFile)

	checkCommon(t, cert, "Example Fleetspeak Server", 365*day)
	want := map[string]bool{oidKeyUsage: true, oidBasicConstraints: true, oidSubjectKeyID: false, oidAuthorityKeyID: false, oidSAN: false}
	if diff := cmp.Diff(want, extensions(cert)); diff != "" {
		t.Errorf("extensions and whether they are critical (-want +got):\n%s", diff)
	}
	if !bytes.Equal(cert.RawIssuer, ca.RawSubject) || !bytes.Equal(cert.AuthorityKeyId, ca.SubjectKeyId) {
		t.Errorf("issuer %v with key %x, want the authority", cert.Issuer, cert.AuthorityKeyId)
	}
	if err := cert.CheckSignatureFrom(ca); err != nil {
		t.Errorf("not signed by the authority: %v", err)
	}
	if want := []string{"fleet.example.com"}; !slices.Equal(cert.DNSNames, want) {
		t.Errorf("DNS names %q, want %q", cert.DNSNames, want)
	}
	wantIPs := []net.IP{net.ParseIP("192.0.2.7"), net.ParseIP("2001:db8::7")}
	if !slices.EqualFunc(cert.IPAddresses, wantIPs, net.IP.Equal) {
		t.Errorf("IP addresses %v, want %v", cert.IPAddresses, wantIPs)
	}
	key := readECKey(t, input.ServerCertKeyFile)
	if key.Curve != elliptic.P256() || !key.PublicKey.Equal(cert.PublicKey) {
		t.Errorf("key on %v, want the P-256 key of the certificate", key.Curve.Params().Name)
	}
}

func TestServerCertificateWithoutHosts(t *testing.T) {
	input, _ := newInput(t)
	input.PublicHostPort = nil
	report := generate(t, input)
	if _, found := extensions(readCertificate(t, input.ServerCertFile))[oidSAN]; found {
		t.Error("there is a SAN extension, want none without public_host_port")
	}
	if !strings.Contains(strings.Join(report.Warnings, "\n"), "public_host_port is empty") {
		t.Errorf("warnings %q do not speak of public_host_port", report.Warnings)
	}
}

func TestLeafServerCertificate(t *testing.T) {
	input, _ := newInput(t)
	input.ServerName = "fleet-name.example.com"
	report, err := configurator.Generate(input, configurator.Options{Now: now, LeafServerCertificate: true})
	if err != nil {
		t.Fatal(err)
	}
	cert := readCertificate(t, input.ServerCertFile)
	if cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("CA %t with key usage %b, want a leaf that signs handshakes only", cert.IsCA, cert.KeyUsage)
	}
	if want := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}; !slices.Equal(cert.ExtKeyUsage, want) {
		t.Errorf("extended key usages %v, want %v", cert.ExtKeyUsage, want)
	}
	if err := cert.VerifyHostname(input.ServerName); err != nil {
		t.Error(err)
	}
	if len(report.Warnings) != 0 {
		t.Errorf("warnings %q, want none", report.Warnings)
	}
}

// TestProvidedAuthority signs with each kind of key that an installation may bring along.
func TestProvidedAuthority(t *testing.T) {
	ec := newECKey(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, ecErr := x509.MarshalECPrivateKey(ec)
	ec8DER, ec8Err := x509.MarshalPKCS8PrivateKey(ec)
	rsa8DER, rsa8Err := x509.MarshalPKCS8PrivateKey(rsaKey)
	ecCA := newAuthority(t, "Old CA", ec, now.Add(1000*day))
	rsaCA := newAuthority(t, "Old CA", rsaKey, now.Add(1000*day))
	other := newAuthority(t, "Other CA", newECKey(t), now.Add(1000*day))

	for name, c := range map[string]struct{ ca, key []byte }{
		"SEC1":                  {ecCA, encode(t, "EC PRIVATE KEY", ecDER, ecErr)},
		"EC as PKCS8":           {ecCA, encode(t, "PRIVATE KEY", ec8DER, ec8Err)},
		"PKCS1":                 {rsaCA, encode(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), nil)},
		"RSA as PKCS8":          {rsaCA, encode(t, "PRIVATE KEY", rsa8DER, rsa8Err)},
		"second of two signs":   {slices.Concat(other, ecCA), encode(t, "EC PRIVATE KEY", ecDER, ecErr)},
		"first of two signs":    {slices.Concat(ecCA, other), encode(t, "EC PRIVATE KEY", ecDER, ecErr)},
		"text around the block": {slices.Concat([]byte("subject=x\n"), ecCA), encode(t, "EC PRIVATE KEY", ecDER, ecErr)},
	} {
		t.Run(name, func(t *testing.T) {
			input, _ := newInput(t)
			writeFile(t, input.TrustedCertFile, c.ca)
			writeFile(t, input.TrustedCertKeyFile, c.key)
			report := generate(t, input)
			if len(report.Warnings) != 0 {
				t.Errorf("warnings %q, want none", report.Warnings)
			}
			cert := readCertificate(t, input.ServerCertFile)
			if cert.Issuer.CommonName != "Old CA" {
				t.Errorf("issuer %v, want the certificate that the key belongs to", cert.Issuer)
			}
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(c.ca)
			if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, DNSName: "fleet.example.com"}); err != nil {
				t.Error(err)
			}
			if got := readFile(t, input.TrustedCertFile); !bytes.Equal(got, c.ca) {
				t.Error("the authority's file changed")
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	for name, c := range map[string]struct {
		caEnd   time.Time
		at      time.Time
		setName string
		want    string
	}{
		"nothing":             {now.Add(1000 * day), now, "", ""},
		"authority ends soon": {now.Add(29 * day), now, "", "expires at 2026-03-30T12:00:00Z"},
		"authority ended":     {now.Add(day), now.Add(2 * day), "", "expired at 2026-03-02T12:00:00Z"},
		"server ends soon":    {now.Add(1000 * day), now.Add(350 * day), "", "remove the file and run this again"},
		"clock":               {now.Add(1000 * day), now.Add(-day), "", "check the clock"},
		"name not in it":      {now.Add(1000 * day), now, "name.example.com", `clients that look for "name.example.com" will refuse`},
	} {
		t.Run(name, func(t *testing.T) {
			input, _ := newInput(t)
			key := newECKey(t)
			der, err := x509.MarshalECPrivateKey(key)
			writeFile(t, input.TrustedCertFile, newAuthority(t, "Old CA", key, c.caEnd))
			writeFile(t, input.TrustedCertKeyFile, encode(t, "EC PRIVATE KEY", der, err))
			generate(t, input) // at now, makes the server's certificate
			input.ServerName = c.setName
			report, err := configurator.Generate(input, configurator.Options{Now: c.at})
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(report.Warnings, "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("warnings %q, want %q", report.Warnings, c.want)
			}
		})
	}
}

func TestWarnsOfForeignServerCertificate(t *testing.T) {
	input, _ := newInput(t)
	key := newECKey(t)
	der, err := x509.MarshalECPrivateKey(key)
	writeFile(t, input.ServerCertFile, newAuthority(t, "Stranger", key, now.Add(1000*day)))
	writeFile(t, input.ServerCertKeyFile, encode(t, "EC PRIVATE KEY", der, err))
	report := generate(t, input)
	if got := strings.Join(report.Warnings, "\n"); !strings.Contains(got, "clients will refuse the certificate: x509: certificate signed by unknown authority") {
		t.Errorf("warnings %q do not say that clients refuse the certificate", report.Warnings)
	}
}
