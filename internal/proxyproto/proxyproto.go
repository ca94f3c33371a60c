// Package proxyproto accepts connections that begin with a PROXY header, version 1 or 2, by which a load balancer tells
// whose connection it passes on.
//
// The header is read by whoever first reads from the connection or asks for its RemoteAddr, under a deadline, and never by
// Accept. So a peer that sends nonsense, or nothing, costs its own connection and holds up nobody (G-02). It also means
// that RemoteAddr blocks until the header is there: nothing in an accept loop may call it. SocketAddr never blocks.
//
// A connection without a header is taken as it is, with the address of its socket, unless Config.Required says otherwise.
// So is one whose header names no TCP address: UNKNOWN of version 1, LOCAL of version 2 (health checks of the balancer), and
// the families that do not fit a TCP connection. The original has an empty address for these, which then fits nowhere; the
// address of the balancer is the truth.
//
// The parser is that of github.com/pires/go-proxyproto. A version 1 line has to come in one piece, of at most 107 bytes.
package proxyproto

import (
	"net"
	"net/netip"
	"time"
)

// DefaultHeaderTimeout is how long a header may take when Config does not say.
const DefaultHeaderTimeout = 5 * time.Second

// Reasons that Config.OnError gets.
const (
	ReasonMalformed  = "malformed"  // the bytes begin like a header and are none
	ReasonMissing    = "missing"    // no header where one is required
	ReasonUntrusted  = "untrusted"  // a header from an address that may not send one
	ReasonTimeout    = "timeout"    // no header, or not all of it, in time
	ReasonConnection = "connection" // the connection broke
)

// Config describes a Listener.
type Config struct {
	// Trusted are the addresses that may send a header: the load balancers. A header from any other ends the connection.
	// None means that everybody may, as with the original.
	Trusted []netip.Prefix
	// Required refuses connections without a header.
	Required bool
	// HeaderTimeout bounds the header, counted from the first look at the connection. Default DefaultHeaderTimeout.
	HeaderTimeout time.Duration
	// OnError is told why a connection ends because of its header, once for each. It runs in the goroutine of that
	// connection, so several may call it at a time. Nil means that nobody is told.
	OnError func(reason string)
	// OnAbsent is told of each connection that was taken without a header, in the same way.
	OnAbsent func()
}

// Listener is a net.Listener whose connections may begin with a PROXY header.
type Listener struct {
	net.Listener
	cfg Config
}

// NewListener returns a Listener that accepts from inner.
func NewListener(inner net.Listener, cfg Config) *Listener {
	if cfg.HeaderTimeout <= 0 {
		cfg.HeaderTimeout = DefaultHeaderTimeout
	}
	if cfg.OnError == nil {
		cfg.OnError = func(string) {}
	}
	if cfg.OnAbsent == nil {
		cfg.OnAbsent = func() {}
	}
	return &Listener{Listener: inner, cfg: cfg}
}

// Accept returns the next connection, a *Conn. It fails only when the inner listener does.
func (l *Listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: conn, cfg: &l.cfg}, nil
}

// trusts says whether headers from the other end of the socket are believed.
func (c *Config) trusts(socket net.Addr) bool {
	if len(c.Trusted) == 0 {
		return true
	}
	tcp, ok := socket.(*net.TCPAddr)
	if !ok {
		return false
	}
	address := tcp.AddrPort().Addr().Unmap().WithZone("")
	for _, prefix := range c.Trusted {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}
