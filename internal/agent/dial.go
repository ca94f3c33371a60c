package agent

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	dialTimeout         = 30 * time.Second
	handshakeTimeout    = 10 * time.Second
	continueTimeout     = time.Second // for 100 Continue, then the body is sent anyway
	maxIdleConnections  = 10
	maxIdleTime         = 30 * time.Second // of kept connections; active polling is faster
	sessionCacheEntries = 32
)

// keepAlive finds out within two minutes that a silent server is gone. The kernel does it; the agent sleeps.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 15 * time.Second, Count: 6}
}

// errRevoked says that each way to trust a server leads over a revoked certificate.
var errRevoked = errors.New("the server's certificate is revoked")

// DialConfig says how servers are reached and which are trusted.
type DialConfig struct {
	// Roots are the only authorities that count; those of the system do not.
	Roots *x509.CertPool
	// ServerName replaces the host name in SNI and in the check of the server's certificate.
	ServerName string
	// Proxy replaces what the environment says.
	Proxy *url.URL
	// CertificateHeader is the HTTP header that carries the client certificate past a balancer. Empty: none does.
	CertificateHeader string
	// PreferHTTP2 offers h2 ahead of http/1.1.
	PreferHTTP2 bool
}

// newTransport makes the transport for one identity, and what dials servers for it. A new identity needs new ones: connections and
// TLS sessions carry the old certificate.
func (c DialConfig) newTransport(id *Identity, revoked func(serial []byte) bool, servers []string) (*http.Transport, *serverDialer) {
	config := c.tlsConfig(id, revoked)
	dialer := &serverDialer{config: config, servers: servers}
	proxy := http.ProxyFromEnvironment
	if c.Proxy != nil {
		proxy = http.ProxyURL(c.Proxy)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(c.PreferHTTP2)
	return &http.Transport{
		Proxy:                 proxy,
		DialContext:           dialWatched,
		DialTLSContext:        dialer.dial, // of servers that are reached without a proxy, and of HTTPS proxies
		TLSClientConfig:       config,      // for servers behind a proxy
		TLSHandshakeTimeout:   handshakeTimeout,
		ExpectContinueTimeout: continueTimeout,
		MaxIdleConns:          maxIdleConnections,
		IdleConnTimeout:       maxIdleTime,
		DisableCompression:    true, // of responses: the protocol has none, and a proxy that adds some delays records
		Protocols:             &protocols,
	}, dialer
}

func (c DialConfig) tlsConfig(id *Identity, revoked func(serial []byte) bool) *tls.Config {
	return &tls.Config{
		RootCAs:    c.Roots,
		ServerName: c.ServerName,
		MinVersion: tls.VersionTLS12,
		CipherSuites: []uint16{ // of TLS 1.2
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		},
		NextProtos: c.alpn(),
		// The server's list of acceptable authorities does not matter: no authority issued this certificate.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &id.certificate, nil
		},
		ClientSessionCache: tls.NewLRUClientSessionCache(sessionCacheEntries), // of those that serverDialer does not keep
		// Unlike VerifyPeerCertificate it also runs when a session is resumed.
		VerifyConnection: func(state tls.ConnectionState) error { return checkRevoked(state, revoked) },
	}
}

func (c DialConfig) alpn() []string {
	if c.PreferHTTP2 {
		return []string{"h2", "http/1.1"}
	}
	return []string{"http/1.1"}
}

// checkRevoked wants a chain without a revoked certificate. Serials are compared as big-endian bytes without leading zeros.
func checkRevoked(state tls.ConnectionState, revoked func(serial []byte) bool) error {
	for _, chain := range state.VerifiedChains {
		if chainIsGood(chain, revoked) {
			return nil
		}
	}
	return fmt.Errorf("%w: %s", errRevoked, state.ServerName)
}

func chainIsGood(chain []*x509.Certificate, revoked func(serial []byte) bool) bool {
	for _, certificate := range chain {
		if revoked(certificate.SerialNumber.Bytes()) {
			return false
		}
	}
	return true
}
