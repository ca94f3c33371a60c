// Package netpoll waits for many idle connections with one goroutine instead of one for each: a blocked goroutine costs
// more memory than everything else that an idle session needs.
//
// A connection is armed when its owner has read all there was. When something arrives, or the peer leaves, its function
// is called once; then it has to be armed again. Calls may be spurious: whoever is called looks, and arms again when
// there was nothing.
//
// Closing a descriptor makes the kernel forget it without a word, so an armed connection must not simply be closed from
// outside: shutting it down (shutdown(2), for example by net.TCPConn.CloseRead) is what wakes its owner, who closes it.
//
// A Poller owns one goroutine, from New to Close.
package netpoll

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrClosed says that the Poller was closed.
var ErrClosed = errors.New("netpoll: closed")

// errNoDescriptor says that a connection cannot be waited for.
var errNoDescriptor = errors.New("netpoll: the connection has no descriptor")

// WouldBlock is what Conn.Read returns in the probing mode when nothing has arrived. It is a temporary net.Error, which
// crypto/tls passes on without giving up the connection.
var WouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "netpoll: nothing to read yet" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// Conn is a connection that can be read without blocking. It stands below TLS.
type Conn struct {
	net.Conn
	raw syscall.RawConn

	patience atomic.Int64 // of writes: a time.Duration, 0 when there is no bound, or waiting

	// Owned by the reader.
	probing bool
	watcher *Poller // that knows the descriptor, which the kernel forgets when it is closed
}

// waiting is the patience of a connection once a write had to wait: its deadline runs.
const waiting = -1

// Listener hands out connections as *Conn, where that is possible.
type Listener struct{ net.Listener }

// Accept returns the next connection.
func (l Listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	raw, err := rawConn(accepted)
	if err != nil {
		return accepted, nil // blocking reads do for it
	}
	return &Conn{Conn: accepted, raw: raw}, nil
}

// rawConn finds the descriptor below whatever wraps it.
func rawConn(c net.Conn) (syscall.RawConn, error) {
	for {
		switch layer := c.(type) {
		case syscall.Conn:
			return layer.SyscallConn()
		case interface{ NetConn() net.Conn }:
			c = layer.NetConn()
		default:
			return nil, errNoDescriptor
		}
	}
}

// Of returns the Conn below TLS, or c itself when it is one; nil when there is none.
func Of(c net.Conn) *Conn {
	for {
		switch layer := c.(type) {
		case *Conn:
			return layer
		case interface{ NetConn() net.Conn }:
			c = layer.NetConn()
		default:
			return nil
		}
	}
}

// Probe turns the probing mode on or off. It belongs to the reading goroutine.
func (c *Conn) Probe(on bool) { c.probing = on }

// Read reads. In the probing mode it returns WouldBlock instead of waiting.
func (c *Conn) Read(p []byte) (int, error) {
	if !c.probing {
		return c.Conn.Read(p)
	}
	return c.readNow(p)
}

// BoundWrites bounds the writes that follow: how long they may wait for the peer, all together. 0 ends that. Unlike a deadline,
// which is a timer, it costs nothing when no write has to wait. It belongs to the writing goroutine.
func (c *Conn) BoundWrites(within time.Duration) error {
	if c.patience.Swap(int64(within)) != waiting {
		return nil
	}
	return c.Conn.SetWriteDeadline(time.Time{})
}

// Write writes all of p. It waits as long as BoundWrites allows.
func (c *Conn) Write(p []byte) (int, error) {
	patience := time.Duration(c.patience.Load())
	if patience <= 0 {
		return c.Conn.Write(p)
	}
	written, err := c.writeNow(p)
	if written == len(p) || err != nil && !errors.Is(err, WouldBlock) {
		return written, err
	}
	c.patience.Store(waiting)
	if err := c.Conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return written, err
	}
	n, err := c.Conn.Write(p[written:])
	return written + n, err
}

// NetConn is the connection below.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// SocketAddr is the address at the other end of the socket, found without blocking.
func (c *Conn) SocketAddr() net.Addr {
	if below, ok := c.Conn.(interface{ SocketAddr() net.Addr }); ok {
		return below.SocketAddr()
	}
	return c.Conn.RemoteAddr()
}

// Shutdown ends both directions and leaves the descriptor open, so that its owner wakes up and closes it.
func (c *Conn) Shutdown() error {
	var failed error
	err := c.raw.Control(func(fd uintptr) { failed = syscall.Shutdown(int(fd), syscall.SHUT_RDWR) })
	if err == nil {
		err = failed
	}
	if err != nil && !errors.Is(err, syscall.ENOTCONN) {
		return fmt.Errorf("netpoll: shutdown: %w", err)
	}
	return nil
}
