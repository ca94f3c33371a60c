package server

import (
	"context"
	"crypto/tls"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/limit"
	"github.com/farspeak/farspeak/internal/netpoll"
)

// Limits of the HTTP layer. Bodies have deadlines of their own, set by the handlers: a session lives longer than any poll.
const (
	headerTimeout = 10 * time.Second // TLS handshake, then request header
	idleTimeout   = 60 * time.Second // between the requests of a polling client
	// maxHeaderBytes holds a certificate header of a large RSA key several times over.
	maxHeaderBytes = 64 << 10
	// maxStreams bounds the requests at once on one HTTP/2 connection of a client, which has a session, a poll or a file
	// under way. The library's 250 would multiply the limit on connections.
	maxStreams = 4
)

// httpServer is the HTTP layer over the client listener.
func (s *Server) httpServer() *http.Server {
	web := &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          log.New(peerNoise{s.metrics}, "", 0),
		BaseContext:       func(net.Listener) context.Context { return s.life },
		ConnContext:       withSocketAddress,
		ConnState:         established,
	}
	if ownAddresses(s.cfg.Certificates) { // a front end's connection carries many clients
		web.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: maxStreams}
	}
	return web
}

// established tells the limits that a connection got as far as a request, so that it need not make room for new ones.
func established(conn net.Conn, state http.ConnState) {
	if state == http.StateActive {
		_ = limit.Established(conn) // fails only where no limits are configured
	}
}

// socketAddressKey finds the address at the other end of a request's socket: the load balancer's, if there is one.
type socketAddressKey struct{}

// withSocketAddress runs in the accept loop, so it must not ask for RemoteAddr: that may read a PROXY header (G-02).
func withSocketAddress(ctx context.Context, conn net.Conn) context.Context {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	if proxied, ok := conn.(interface{ SocketAddr() net.Addr }); ok {
		return context.WithValue(ctx, socketAddressKey{}, proxied.SocketAddr())
	}
	return ctx
}

// socketAddress is who opened the TCP connection of a request. It decides whether headers of a front end are believed;
// the address that a PROXY header tells does not.
func socketAddress(r *http.Request) netip.Addr {
	if tcp, ok := r.Context().Value(socketAddressKey{}).(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	observed, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return observed.Addr().Unmap()
}

// listener is what the HTTP layer accepts from: TLS over the configured listener, or that listener itself.
func (s *Server) listener() net.Listener {
	pollable := netpoll.Listener{Listener: s.cfg.Listener}
	if s.cfg.TLS == nil {
		return pollable
	}
	return tls.NewListener(pollable, s.cfg.TLS)
}

// TLSConfig is the server side of the wire protocol's TLS: client certificates are asked for and never verified, because
// agents sign their own and the key alone is the identity.
func TLSConfig(certificate tls.Certificate) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{certificate},
		MinVersion:   tls.VersionTLS12,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		},
		ClientAuth: tls.RequestClientCert,
		NextProtos: []string{"h2", "http/1.1"},
	}
}

// peerNoise counts what the HTTP library says of broken peers, and keeps the rest of its messages.
type peerNoise struct{ metrics *metrics }

func (n peerNoise) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	switch {
	case strings.Contains(text, "TLS handshake error"):
		n.metrics.refused.WithLabelValues("tls").Inc()
		glog.V(2).Info(text)
	case strings.Contains(text, "panic serving"):
		n.metrics.panics.Inc()
		glog.Error(text)
	default:
		glog.V(1).Info(text)
	}
	return len(line), nil
}
