package fleet

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/farspeak/farspeak/internal/resume"
)

const (
	// openTimeout bounds everything from the dial to the answer to record 0.
	openTimeout = 60 * time.Second
	// writeTimeout bounds one write to a server.
	writeTimeout = 60 * time.Second
)

// Dialer makes connections as agents do: mutual TLS, with a client's own key. It is safe for concurrent use.
type Dialer struct {
	roots    *x509.CertPool
	insecure bool
	curves   []tls.CurveID          // nil for the usual ones
	configs  map[string]*tls.Config // by server address
	sources  []net.Addr
	turn     atomic.Uint32
	known    atomic.Pointer[[]byte] // the server certificate that was verified last, DER
}

// credentialsKey finds the client's identity in the context of a handshake: one TLS configuration serves all clients.
type credentialsKey struct{}

// NewDialer takes the servers, what is trusted, and the source addresses from a job.
func NewDialer(job Job) (*Dialer, error) {
	d := &Dialer{roots: x509.NewCertPool(), insecure: job.Insecure, configs: make(map[string]*tls.Config)}
	if job.Classic {
		d.curves = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
	}
	switch {
	case len(job.Servers) == 0:
		return nil, errors.New("there is no server to connect to")
	case !job.Insecure && !d.roots.AppendCertsFromPEM([]byte(job.TrustedCerts)):
		return nil, errors.New("the trusted certificates hold no certificate")
	}
	for _, server := range job.Servers {
		host, _, err := net.SplitHostPort(server)
		if err != nil {
			return nil, fmt.Errorf("server %q: %w", server, err)
		}
		d.configs[server] = d.config(cmp.Or(job.ServerName, host))
	}
	for _, source := range job.Sources {
		ip := net.ParseIP(source)
		if ip == nil {
			return nil, fmt.Errorf("source %q is no IP address", source)
		}
		d.sources = append(d.sources, &net.TCPAddr{IP: ip})
	}
	return d, nil
}

func (d *Dialer) config(serverName string) *tls.Config {
	return &tls.Config{
		ServerName:           serverName,
		MinVersion:           tls.VersionTLS12,
		CurvePreferences:     d.curves,
		NextProtos:           []string{"http/1.1"},
		GetClientCertificate: presentCertificate,
		// Verification is done below instead, once for each certificate that servers present.
		InsecureSkipVerify: true,
		VerifyConnection:   d.verify,
	}
}

// presentCertificate is for the client whose handshake it is.
func presentCertificate(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return request.Context().Value(credentialsKey{}).(credentials).certificate()
}

// verify checks the server's certificate. A fleet meets the same one thousands of times.
func (d *Dialer) verify(state tls.ConnectionState) error {
	if d.insecure {
		return nil
	}
	leaf := state.PeerCertificates[0] // a TLS server always has one
	if known := d.known.Load(); known != nil && bytes.Equal(*known, leaf.Raw) {
		return nil
	}
	intermediates := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		intermediates.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: d.roots, Intermediates: intermediates, DNSName: state.ServerName})
	if err == nil {
		d.known.Store(&leaf.Raw)
	}
	return err
}

// Dial makes a connection for a client with a finished handshake, and a deadline for what follows. Tickets may be nil.
func (d *Dialer) Dial(ctx context.Context, server string, keys *Keyring, index int, tickets *resume.Cache) (*tls.Conn, error) {
	deadline := time.Now().Add(openTimeout)
	network := net.Dialer{Deadline: deadline, Control: shareSourcePorts, KeepAlive: -1}
	if len(d.sources) > 0 {
		network.LocalAddr = d.sources[int(d.turn.Add(1))%len(d.sources)]
	}
	// The context cannot be cancelled, so that the handshake needs no second goroutine; the deadline bounds it.
	handshake := context.WithValue(context.WithoutCancel(ctx), credentialsKey{}, keys.at(index))
	connect := func(config *tls.Config) (*tls.Conn, error) {
		plain, err := network.DialContext(ctx, "tcp", server)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(plain, config)
		_ = conn.SetDeadline(deadline) // fails only on a closed connection, which the handshake notices
		if err := conn.HandshakeContext(handshake); err != nil {
			_ = plain.Close()
			return nil, fmt.Errorf("handshake: %w", err)
		}
		return conn, nil
	}
	if tickets == nil {
		return connect(d.configs[server])
	}
	return tickets.Dial(d.configs[server], connect)
}
