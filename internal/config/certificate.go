package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/farspeak/farspeak/internal/config/textpb"
)

// maxPEMBytes bounds certificate and key files.
const maxPEMBytes = 1 << 20

// pemSource is where a certificate or key comes from: written out in one field, or a file named by another.
type pemSource struct {
	inline    []byte
	field     string // of the inline text; empty when only a file can be given
	path      string
	pathField string
}

// given is the field that names the source, empty when none does.
func (s pemSource) given() string {
	switch {
	case len(s.inline) > 0:
		return s.field
	case s.path != "":
		return s.pathField
	}
	return ""
}

// read returns the PEM text and the field to blame for it.
func (s pemSource) read(r *textpb.Report) (text []byte, field string) {
	switch {
	case len(s.inline) > 0 && s.path != "":
		r.Error(s.pathField, "given besides "+s.field, "keep one of the two")
		return nil, s.pathField
	case s.path != "":
		return namedFile(r, s.pathField, s.path, maxPEMBytes), s.pathField
	case s.field == "":
		r.Error(s.pathField, "absent", "name the PEM file")
		return nil, s.pathField
	case len(s.inline) == 0:
		r.Error(s.field, "absent", fmt.Sprintf("write the PEM text here, or the path of a PEM file in %s", s.pathField))
	}
	return s.inline, s.field
}

// keyPair reads a certificate chain and its key and checks that they belong together. The zero value comes with a
// complaint.
func (f *File) keyPair(r *textpb.Report, chain, key pemSource) tls.Certificate {
	chainPEM, chainField := chain.read(r)
	keyPEM, keyField := key.read(r)
	if key.path != "" {
		warnIfOpen(r, key.pathField, key.path)
	}
	if len(chainPEM) == 0 || !hasCertificate(r, chainField, chainPEM) || len(keyPEM) == 0 {
		return tls.Certificate{}
	}
	pair, err := tls.X509KeyPair(chainPEM, keyPEM)
	if err != nil {
		r.Error(keyField, strings.TrimPrefix(err.Error(), "tls: "),
			fmt.Sprintf("give the unencrypted PEM key of the first certificate of %s", chainField))
		return tls.Certificate{}
	}
	f.checkDates(r, chainField, pair.Leaf)
	return pair
}

// hasCertificate complains unless the text begins with a certificate, text between PEM blocks aside.
func hasCertificate(r *textpb.Report, field string, text []byte) bool {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			r.Error(field, "holds a damaged certificate", "give the PEM chain, leaf first")
			return false
		}
		return true
	}
	r.Error(field, "holds no PEM certificate", "give the PEM chain, leaf first")
	return false
}

// checkDates warns; a certificate out of its time keeps no daemon from starting, since agents are the ones to judge.
func (f *File) checkDates(r *textpb.Report, field string, leaf *x509.Certificate) {
	switch left := leaf.NotAfter.Sub(f.now); {
	case left < 0:
		r.Warn(field, "the certificate expired on "+leaf.NotAfter.UTC().Format(time.DateOnly), "renew it now: agents refuse it")
	case f.now.Before(leaf.NotBefore):
		r.Warn(field, "the certificate is not valid before "+leaf.NotBefore.UTC().Format(time.DateTime), "check the clock")
	case left < expiryNotice:
		r.Warn(field, "the certificate expires on "+leaf.NotAfter.UTC().Format(time.DateOnly), "renew it")
	}
}

// authorities reads a PEM file of certificates to trust, nil when there is no path or after a complaint.
func authorities(r *textpb.Report, field, path string) *x509.CertPool {
	text := namedFile(r, field, path, maxPEMBytes)
	if text == nil {
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		r.Error(field, path+" holds no PEM certificate", "give the certificates of the authorities to trust")
		return nil
	}
	return pool
}
