package configurator

import (
	"crypto/x509"
	"fmt"
	"os"
	"time"
)

// expiryNotice is how long before its end a certificate is worth a warning.
const expiryNotice = 30 * 24 * time.Hour

func (g *generator) warn(format string, args ...any) {
	g.report.Warnings = append(g.report.Warnings, fmt.Sprintf(format, args...))
}

// warnExpiry speaks of a certificate that is not valid now or will not be for long.
func (g *generator) warnExpiry(path string, cert *x509.Certificate, remedy string) {
	now, subject := g.opts.Now, cert.Subject
	switch end := cert.NotAfter.UTC().Format(time.RFC3339); {
	case now.Before(cert.NotBefore):
		g.warn("%s: certificate %q is valid only from %s on: check the clock", path, subject, cert.NotBefore.UTC().Format(time.RFC3339))
	case now.After(cert.NotAfter):
		g.warn("%s: certificate %q expired at %s: %s", path, subject, end, remedy)
	case cert.NotAfter.Sub(now) < expiryNotice:
		g.warn("%s: certificate %q expires at %s: %s", path, subject, end, remedy)
	}
}

// warnReadable speaks of a file with a private key that more than its owner can read. Nothing here changes the mode of
// an existing file.
func (g *generator) warnReadable(path string) {
	info, err := os.Stat(path)
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o007 != 0 {
		g.warn("%s holds a private key and every user of this machine can reach it (mode %04o): chmod 0600 %s",
			path, info.Mode().Perm(), path)
	}
}
