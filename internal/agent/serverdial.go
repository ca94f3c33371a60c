package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"

	"github.com/farspeak/farspeak/internal/resume"
)

// serverDialer makes TLS connections as one identity.
type serverDialer struct {
	config  *tls.Config
	servers []string     // whose tickets are kept
	tickets resume.Cache // of them
}

// dial opens a connection and shakes hands. Only the servers themselves have said anything of their tickets; the other end may
// be a proxy.
func (d *serverDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	config := d.config.Clone()
	if config.ServerName == "" {
		config.ServerName = host
	}
	connect := func(config *tls.Config) (*tls.Conn, error) { return dialSecured(ctx, network, address, config) }
	var conn *tls.Conn
	if slices.Contains(d.servers, address) {
		conn, err = d.tickets.Dial(config, connect)
	} else {
		conn, err = connect(config)
	}
	if err != nil {
		return nil, err // a nil *tls.Conn would be a net.Conn that is not nil
	}
	return conn, nil
}

// dialSecured opens a connection and finishes its handshake in time, or closes it.
func dialSecured(ctx context.Context, network, address string, config *tls.Config) (*tls.Conn, error) {
	plain, err := dialWatched(ctx, network, address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn := tls.Client(plain, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = plain.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return conn, nil
}

// dialWatched opens a TCP connection whose end can be watched.
func dialWatched(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAliveConfig: keepAlive()}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &watchedConn{Conn: conn}, nil
}
