// Package limit keeps a server's connections within what it can serve. What is over a limit is refused at once, before it
// costs a handshake, so that the accept queue never fills with peers that nobody will answer.
//
// Three limits stand in a row, each against another way to run out:
//
//   - Listener bounds open connections, so that descriptors are left for the database, files and operators.
//     MaxConnections tells how many that may be.
//   - Listener bounds, among these, connections that have not said anything worth keeping yet. When many are silent, the
//     oldest makes room: an honest peer needs no more than moments.
//   - Handshakes bounds the signatures that are computed at a time, which is what a handshake costs. A peer that says
//     hello and then nothing holds no place there.
package limit

import (
	"container/list"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// HalfOpenGrace is how long a connection may stay half-open before it may have to make room. It is longer than a handshake
// takes even on a busy server, so that a storm of honest peers is refused at the door and not in the middle.
const HalfOpenGrace = 2 * time.Second

// Reasons that Config.OnRefuse gets.
const (
	ReasonFull     = "full"      // as many connections are open as may be
	ReasonHalfOpen = "half_open" // as many are half-open as may be, none of them for long
	ReasonSilent   = "silent"    // half-open for too long, and closed to make room
)

// Config describes a Listener.
type Config struct {
	// Max bounds open connections. Needed.
	Max int
	// MaxHalfOpen bounds those that are not established yet. Whoever sets it has to call Established, or connections in
	// use are closed. Default 0: only Max counts.
	MaxHalfOpen int
	// OnRefuse is told of each connection that is closed for the sake of a limit. It is called from Accept and should
	// be quick. Nil means that nobody is told.
	OnRefuse func(reason string)
}

// Listener is a net.Listener that closes what is over its limits.
type Listener struct {
	net.Listener
	cfg Config

	// Guarded by mu.
	mu       sync.Mutex
	open     int
	halfOpen list.List // of *conn, oldest first
}

// NewListener returns a Listener that accepts from inner.
func NewListener(inner net.Listener, cfg Config) (*Listener, error) {
	if cfg.Max <= 0 || cfg.MaxHalfOpen < 0 {
		return nil, fmt.Errorf("limit: %d connections, of these %d half-open", cfg.Max, cfg.MaxHalfOpen)
	}
	if cfg.OnRefuse == nil {
		cfg.OnRefuse = func(string) {}
	}
	return &Listener{Listener: inner, cfg: cfg}, nil
}

// Accept returns the next connection that is within the limits. It fails only when the inner listener does.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c, silent, reason := l.admit(accepted)
		if silent != nil {
			l.cfg.OnRefuse(ReasonSilent)
			_ = reset(silent) // counted out already
		}
		if c != nil {
			return c, nil
		}
		l.cfg.OnRefuse(reason)
		_ = reset(accepted) // nobody is there to hear of it
	}
}

// admit counts a connection in, unless it is refused for a reason. silent is the one that had to make room for it.
func (l *Listener) admit(accepted net.Conn) (c *conn, silent net.Conn, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cfg.MaxHalfOpen > 0 && l.halfOpen.Len() >= l.cfg.MaxHalfOpen {
		oldest := l.halfOpen.Front().Value.(*conn)
		if time.Since(oldest.since) < HalfOpenGrace {
			return nil, nil, ReasonHalfOpen
		}
		l.closeLocked(oldest)
		silent = oldest.Conn
	}
	if l.open >= l.cfg.Max {
		return nil, silent, ReasonFull
	}
	c = &conn{Conn: accepted, listener: l, since: time.Now()}
	l.open++
	if l.cfg.MaxHalfOpen > 0 {
		c.place = l.halfOpen.PushBack(c)
	}
	return c, silent, ""
}

// Open is how many connections are open.
func (l *Listener) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// HalfOpen is how many of them are half-open.
func (l *Listener) HalfOpen() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.halfOpen.Len()
}

// conn is a connection that is counted.
type conn struct {
	net.Conn
	listener *Listener
	since    time.Time

	// Guarded by listener.mu.
	place  *list.Element // in halfOpen; nil when established
	closed bool          // counted out
}

// Close closes the connection and counts it out.
func (c *conn) Close() error {
	c.listener.mu.Lock()
	c.listener.closeLocked(c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// NetConn is the connection below.
func (c *conn) NetConn() net.Conn { return c.Conn }

func (l *Listener) establish(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.establishLocked(c)
}

func (l *Listener) establishLocked(c *conn) {
	if c.place != nil {
		l.halfOpen.Remove(c.place)
		c.place = nil
	}
}

func (l *Listener) closeLocked(c *conn) {
	if c.closed {
		return
	}
	c.closed = true
	l.open--
	l.establishLocked(c)
}

// errNotCounted says that a connection does not come from a Listener.
var errNotCounted = errors.New("limit: the connection comes from no Listener")

// Established says that a connection has proved worth keeping, and does not have to make room any more. It finds the
// Listener's connection below TLS and whatever else has a NetConn method.
func Established(c net.Conn) error {
	for {
		switch layer := c.(type) {
		case *conn:
			layer.listener.establish(layer)
			return nil
		case interface{ NetConn() net.Conn }:
			c = layer.NetConn()
		default:
			return errNotCounted
		}
	}
}

// reset closes a connection without a goodbye, so that nothing of it stays behind in the kernel.
func reset(c net.Conn) error {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // the connection may be gone already
	}
	return c.Close()
}
