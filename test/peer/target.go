package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"time"
)

const (
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
)

// Target is a place where a server, or the balancer before it, takes agents.
type Target struct {
	// Address is host:port.
	Address string
	// Roots are the certificates to trust; nil means plain HTTP, as the cleartext front-end modes have it.
	Roots *x509.CertPool
	// CertificateHeader is the HTTP header that carries the client's certificate; empty means none.
	CertificateHeader string
	// Preamble is sent before anything else, TLS included: a PROXY header.
	Preamble []byte
	// Copies is how often the client's certificate stands in the chain. 0 means once; below 0, not at all.
	Copies int
}

// Dial opens a connection and, unless the target is cleartext, does the handshake.
func (t Target) Dial(ctx context.Context, key *Key) (net.Conn, error) {
	conn, err := t.DialTCP(ctx)
	if err != nil || t.Roots == nil {
		return conn, err
	}
	secured := tls.Client(conn, t.tlsConfig(key))
	handshake, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := secured.HandshakeContext(handshake); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("handshake with %s: %w", t.Address, err)
	}
	return secured, nil
}

// DialTCP opens a connection and sends the preamble.
func (t Target) DialTCP(ctx context.Context) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", t.Address)
	if err != nil {
		return nil, err
	}
	if len(t.Preamble) > 0 {
		if _, err := conn.Write(t.Preamble); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("preamble: %w", err)
		}
	}
	return conn, nil
}

// tlsConfig is that of the reference agent: HTTP/1.1 only, no session cache, the certificate presented whatever
// authorities the server names.
func (t Target) tlsConfig(key *Key) *tls.Config {
	host, _, err := net.SplitHostPort(t.Address)
	if err != nil {
		host = t.Address
	}
	config := &tls.Config{
		RootCAs:                t.Roots,
		ServerName:             host,
		NextProtos:             []string{"http/1.1"},
		MinVersion:             tls.VersionTLS12,
		SessionTicketsDisabled: true,
	}
	if t.Copies >= 0 {
		certificate := key.tlsCertificate(max(1, t.Copies))
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return certificate, nil
		}
	}
	return config
}
