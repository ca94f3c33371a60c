package agent

import (
	"context"
	"crypto/tls"
	"net"
	"net/http/httptrace"
	"sync"
)

// watchedConn tells when it is closed, by whomever.
//
// net/http reports a broken connection only after the body of the request has ended, and the body of a session does not end
// before the session does. What breaks the circle is that net/http closes the connection first.
type watchedConn struct {
	net.Conn

	mu     sync.Mutex
	closed bool
	tell   func()
}

// Close tells, and closes.
func (c *watchedConn) Close() error {
	c.mu.Lock()
	tell := c.tell
	c.closed, c.tell = true, nil
	c.mu.Unlock()
	if tell != nil {
		tell()
	}
	return c.Conn.Close()
}

// whenClosed has tell called at the close, or at once when that was before. A later call replaces it.
func (c *watchedConn) whenClosed(tell func()) {
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.tell = tell
	}
	c.mu.Unlock()
	if closed {
		tell()
	}
}

// watchConnection has tell called when the connection that a request gets is closed.
func watchConnection(ctx context.Context, tell func()) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		conn := got.Conn
		if secured, ok := conn.(*tls.Conn); ok {
			conn = secured.NetConn()
		}
		if watched, ok := conn.(*watchedConn); ok {
			watched.whenClosed(tell)
		}
	}})
}
