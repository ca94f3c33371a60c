package clientcert_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/farspeak/farspeak/internal/clientcert"
	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// checkIdentity holds for whatever is accepted: ID and key belong together, and errors have a kind.
func checkIdentity(t *testing.T, got *clientcert.Identity, err error) {
	t.Helper()
	if err != nil {
		if got != nil || !errors.Is(err, clientcert.ErrMissing) && !errors.Is(err, clientcert.ErrMalformed) && !errors.Is(err, clientcert.ErrChecksum) {
			t.Fatalf("%v, error %v", got, err)
		}
		return
	}
	if got.ID != identity.ClientIDFromSPKI(got.SPKI) {
		t.Errorf("client %v with key %x", got.ID, got.SPKI)
	}
	if want, err := x509.MarshalPKIXPublicKey(got.Certificate.PublicKey); err != nil || !bytes.Equal(got.SPKI, want) {
		t.Errorf("key %x, want %x, error %v", got.SPKI, want, err)
	}
}

func FuzzCertificateHeader(f *testing.F) {
	for _, agent := range readRecorded(f) {
		value := clientcert.EncodeHeader(agent.Certificate)
		f.Add(value, clientcert.EncodeChecksum(agent.Certificate))
		f.Add(value+"%0A", "")
		f.Add(strings.ReplaceAll(value, "%20", "+"), "x")
	}
	plain := mustNew(f, clientcert.Config{Mode: clientcert.HTTPSHeader, CertificateHeader: certHeader})
	checked := mustNew(f, clientcert.Config{
		Mode: clientcert.HTTPSHeaderChecksum, CertificateHeader: certHeader, ChecksumHeader: checksumHeader,
	})
	f.Fuzz(func(t *testing.T, value, checksum string) {
		header := http.Header{certHeader: {value}, checksumHeader: {checksum}}
		got, err := plain.Extract(nil, header, stranger)
		checkIdentity(t, got, err)
		same, checkedErr := checked.Extract(nil, header, stranger)
		checkIdentity(t, same, checkedErr)
		if checkedErr == nil && (err != nil || same.ID != got.ID) {
			t.Errorf("with checksum %v, without %v, error %v", same.ID, got, err)
		}
		if err == nil {
			again, err := plain.Extract(nil, http.Header{certHeader: {clientcert.EncodeHeader(got.Certificate.Raw)}}, stranger)
			if err != nil || again.ID != got.ID {
				t.Errorf("encoded again: %v, error %v", again, err)
			}
		}
	})
}

func FuzzXFCC(f *testing.F) {
	value := clientcert.EncodeHeader(readRecorded(f)[0].Certificate)
	f.Add(`Hash=x;Cert="` + value + `";Subject="O=a,b"`)
	f.Add(`Subject="\"";Cert=` + value)
	f.Add(value)
	f.Add(`Hash=x,=;Cert=a\`)
	x := mustNew(f, clientcert.Config{Mode: clientcert.CleartextXFCC, CertificateHeader: certHeader})
	f.Fuzz(func(t *testing.T, header string) {
		got, err := x.Extract(nil, http.Header{certHeader: {header}}, stranger)
		checkIdentity(t, got, err)
		found := clientcert.XFCCCertificate(header)
		if len(found) > len(header) || found == "" && header != "" {
			t.Errorf("%q is longer than its header %q, or empty", found, header)
		}
		quoted := `Cert="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(header) + `",Cert=x`
		if back := clientcert.XFCCCertificate(quoted); header != "" && back != header {
			t.Errorf("quoted as %q it comes back as %q", quoted, back)
		}
	})
}

func FuzzSignature(f *testing.F) {
	key := mustKey[*ecdsa.PrivateKey](f)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	f.Add(mustCertify(f, key), int32(10), mustSign(f, key, crypto.SHA256, false))
	for _, agent := range readRecorded(f) {
		f.Add([]byte(agent.Certificate), int32(10), []byte("signature"))
	}
	f.Add([]byte(nil), int32(4), []byte("x")) // G-01
	f.Fuzz(func(t *testing.T, certificate []byte, algorithm int32, bytesOf []byte) {
		signature := &fspb.Signature{Algorithm: algorithm, Signature: bytesOf}
		if len(certificate) > 0 {
			signature.Certificate = [][]byte{certificate}
		}
		valid, err := verify(contact, signature)
		if valid && (err != nil || algorithm < 3 || algorithm > 15 || bytes.Equal(bytesOf, nil)) {
			t.Errorf("valid with algorithm %d, error %v", algorithm, err)
		}
		if err != nil && !errors.Is(err, clientcert.ErrSignature) {
			t.Errorf("error %v", err)
		}
	})
}
