package admin

import (
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/netutil"
)

const (
	// maxConnections bounds the connections. Past it they wait in the accept queue, until others end: idle ones do after
	// idleConnection.
	maxConnections = 4096
	// maxFromOneSource bounds the connections from one address, so that no single machine can take them all. Past it they
	// are closed. A balancer in front is one address; gRPC needs few connections for many calls.
	maxFromOneSource = maxConnections / 4
	// sourceBits is the part of an IPv6 address that names a machine's network. Who has one has all addresses in it.
	sourceBits = 64
)

// limited bounds the connections of a listener, in all and by source. refused is called for each that is closed.
func limited(l net.Listener, refused func()) net.Listener {
	return &sourceListener{
		Listener: netutil.LimitListener(l, maxConnections), refused: refused, open: make(map[netip.Prefix]int),
	}
}

type sourceListener struct {
	net.Listener
	refused func()

	mu   sync.Mutex
	open map[netip.Prefix]int // guarded by mu; connections by source
}

// Accept returns the next connection from a source that has room for it.
func (l *sourceListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		source, ok := sourceOf(c.RemoteAddr())
		if !ok {
			return c, nil
		}
		if l.enter(source) {
			return &sourceConn{Conn: c, leave: sync.OnceFunc(func() { l.leave(source) })}, nil
		}
		l.refused()
		_ = c.Close() // nothing was sent on it
	}
}

// sourceOf is what connections are counted by. Callers on a Unix socket have no address.
func sourceOf(a net.Addr) (source netip.Prefix, ok bool) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return source, false
	}
	address := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := address.BitLen()
	if address.Is6() {
		bits = sourceBits
	}
	source, err := address.Prefix(bits)
	return source, err == nil
}

func (l *sourceListener) enter(source netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[source] >= maxFromOneSource {
		return false
	}
	l.open[source]++
	return true
}

func (l *sourceListener) leave(source netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[source]--; l.open[source] == 0 {
		delete(l.open, source)
	}
}

// sourceConn counts itself down when it is closed.
type sourceConn struct {
	net.Conn
	leave func()
}

func (c *sourceConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
