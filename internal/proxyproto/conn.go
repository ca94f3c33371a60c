package proxyproto

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

// headerBuffer holds a version 1 line and what may have come with it, in bytes. Longer version 2 headers pass through it.
const headerBuffer = 256

// Conn is a connection that may begin with a PROXY header. Like any net.Conn it may be used by several goroutines at once.
type Conn struct {
	net.Conn
	cfg *Config

	// Written once by readHeader, read after it.
	header sync.Once
	err    error    // ends every use of the connection
	source net.Addr // as the header tells, or that of the socket

	// Owned by the reader, after readHeader.
	ahead *bufio.Reader // what was read beyond the header; nil when it is used up

	// Guarded by mu.
	mu       sync.Mutex
	deadline time.Time // for reads, as set from outside
	until    time.Time // for the header; zero when it is not being read
}

// ReadHeader reads the header unless that was done before, and returns what is wrong with it.
func (c *Conn) ReadHeader() error {
	c.header.Do(func() {
		reason, err := c.readHeader()
		if err != nil {
			c.err = fmt.Errorf("PROXY header from %v: %s: %w", c.Conn.RemoteAddr(), reason, err)
			c.cfg.OnError(reason)
		}
	})
	return c.err
}

// Read reads what comes after the header.
func (c *Conn) Read(p []byte) (int, error) {
	if err := c.ReadHeader(); err != nil {
		return 0, err
	}
	if c.ahead == nil {
		return c.Conn.Read(p)
	}
	n, err := c.ahead.Read(p[:min(len(p), c.ahead.Buffered())])
	if c.ahead.Buffered() == 0 {
		c.ahead = nil
	}
	return n, err
}

// Write writes to the connection. It reads the header before, so that a peer that may not talk to us gets no answer.
func (c *Conn) Write(p []byte) (int, error) {
	if err := c.ReadHeader(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// RemoteAddr is the address of the client. It reads the header, so it may block for as long as that may take.
func (c *Conn) RemoteAddr() net.Addr {
	if c.ReadHeader() != nil {
		return c.Conn.RemoteAddr()
	}
	return c.source
}

// SocketAddr is the address at the other end of the socket, the load balancer's if there is one. It never blocks.
func (c *Conn) SocketAddr() net.Addr { return c.Conn.RemoteAddr() }

// NetConn is the connection below.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.Conn.SetWriteDeadline(t))
}

// SetReadDeadline sets the deadline for reads. While the header is read it can only come sooner than that of the header.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return c.applyDeadlineLocked()
}

// limitHeader sets the time until which the header has to be read; the zero time ends that limit, and puts back in force
// what was set from outside.
func (c *Conn) limitHeader(until time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = until
	return c.applyDeadlineLocked()
}

func (c *Conn) applyDeadlineLocked() error {
	t := c.deadline
	if !c.until.IsZero() && (t.IsZero() || c.until.Before(t)) {
		t = c.until
	}
	return c.Conn.SetReadDeadline(t)
}

// readHeader reads the header, if any, and decides whether the connection may go on.
func (c *Conn) readHeader() (reason string, err error) {
	c.source = c.Conn.RemoteAddr()
	if err := c.limitHeader(time.Now().Add(c.cfg.HeaderTimeout)); err != nil {
		return ReasonConnection, err
	}
	socket := &erring{Reader: c.Conn}
	buffer := bufio.NewReaderSize(socket, headerBuffer)
	header, err := proxyproto.Read(buffer)
	if buffer.Buffered() > 0 {
		c.ahead = buffer
	}
	switch {
	case errors.Is(socket.err, os.ErrDeadlineExceeded):
		return ReasonTimeout, socket.err
	case socket.err != nil && socket.err != io.EOF:
		return ReasonConnection, socket.err
	case socket.err == io.EOF && errors.Is(err, proxyproto.ErrNoProxyProtocol) && c.ahead == nil:
		return ReasonConnection, io.EOF // nothing came at all: a probe of the port
	case errors.Is(err, proxyproto.ErrNoProxyProtocol):
		return c.withoutHeader()
	case err != nil:
		return ReasonMalformed, err
	case !c.cfg.trusts(c.source):
		return ReasonUntrusted, proxyproto.ErrSuperfluousProxyHeader
	}
	if source, ok := header.SourceAddr.(*net.TCPAddr); ok && !header.Command.IsLocal() {
		c.source = source
	}
	return c.endHeader()
}

func (c *Conn) withoutHeader() (reason string, err error) {
	if c.cfg.Required {
		return ReasonMissing, proxyproto.ErrNoProxyProtocol
	}
	c.cfg.OnAbsent()
	return c.endHeader()
}

func (c *Conn) endHeader() (reason string, err error) {
	return ReasonConnection, c.limitHeader(time.Time{})
}

// erring keeps the error of the reader, which a parser may hide.
type erring struct {
	io.Reader
	err error
}

func (e *erring) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	e.err = err
	return n, err
}
