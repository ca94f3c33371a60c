package server

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/netpoll"
	"github.com/farspeak/farspeak/internal/wire"
)

const (
	// sessionBuffer is what a session reads lengths and chunk headers through. Bodies of records pass it by.
	sessionBuffer = 512
	// maxKeptBuffer is the largest buffer that a pool keeps, and the largest chunk that is put together in one.
	maxKeptBuffer = 64 << 10
	// lingerTimeout and lingerBytes bound what is still read from a peer that was refused. Closing at once would have the
	// kernel throw the answer away together with what the peer had sent.
	lingerTimeout = 500 * time.Millisecond
	lingerBytes   = 256 << 10
)

// sessionHeader opens the answer of a session, lastChunk ends it.
const (
	sessionHeader = "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
	lastChunk     = "0\r\n\r\n"
)

// headerFor is the header of a session's answer.
func headerFor(p promise) string {
	header := sessionHeader + wire.FeaturesHeader + ": " + p.features + "\r\n"
	if p.lifetime > 0 {
		header += wire.SessionLifetimeHeader + ": " + wire.FormatLifetime(p.lifetime) + "\r\n"
	}
	return header + "\r\n"
}

// http1Stream is a hijacked connection. What net/http keeps for a request (buffers, goroutines, the parsed header) is
// garbage once it is taken over. While nothing arrives the stream has neither a goroutine nor a buffer.
type http1Stream struct {
	body
	conn   net.Conn
	socket *netpoll.Conn // below conn; nil when the connection cannot be waited for
	idle   *idlePoller   // waits for socket

	// Owned by the reading side.
	ahead bool // net/http had read a part of the body, which may not be used up yet
	woken bool // the poller called, and what it was for was not read yet

	// Owned by the writing side.
	header           string // still to be sent before the first chunk
	started, refused bool
}

// hijack takes the connection and, when the peer waits for it, tells it to send its body.
func hijack(w http.ResponseWriter, r *http.Request, idle *idlePoller, p promise) (*http1Stream, error) {
	chunked := len(r.TransferEncoding) > 0
	length := r.ContentLength
	expects := r.Header.Get("Expect") != ""
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("taking the connection over: %w", err)
	}
	ahead, err := buffered.Reader.Peek(buffered.Reader.Buffered())
	if err == nil && expects {
		err = sendContinue(conn)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("taking the connection over: %w", err)
	}
	s := &http1Stream{body: body{chunked: chunked}, conn: conn, socket: netpoll.Of(conn), idle: idle, header: headerFor(p)}
	if !chunked {
		s.left = length
	}
	s.buffer, s.ahead = bufferAfter(bytes.Clone(ahead), conn), len(ahead) > 0
	return s, nil
}

func sendContinue(conn net.Conn) error {
	if err := conn.SetWriteDeadline(time.Now().Add(pushTimeout)); err != nil {
		return err
	}
	_, err := io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
	return err
}

// bufferAfter reads from conn after what net/http has read of the body already.
func bufferAfter(ahead []byte, conn net.Conn) *bufio.Reader {
	buffer := readBuffers.Get().(*bufio.Reader)
	if len(ahead) == 0 {
		buffer.Reset(conn)
	} else {
		buffer.Reset(io.MultiReader(bytes.NewReader(ahead), conn))
	}
	return buffer
}

func (s *http1Stream) start() { s.started = true }

// chunkBuffers holds buffers in which a chunk is put together, so that it leaves in one TLS record.
var chunkBuffers = sync.Pool{New: func() any { return new([]byte) }}

func (s *http1Stream) Write(p []byte) (int, error) {
	kept := chunkBuffers.Get().(*[]byte)
	defer chunkBuffers.Put(kept)
	chunk := append((*kept)[:0], s.header...)
	s.header = ""
	chunk = strconv.AppendUint(chunk, uint64(len(p)), 16)
	chunk = append(chunk, "\r\n"...)
	if len(p) > maxKeptBuffer {
		return s.writeLarge(chunk, p)
	}
	chunk = append(chunk, p...)
	chunk = append(chunk, "\r\n"...)
	*kept = chunk
	if _, err := s.conn.Write(chunk); err != nil {
		return 0, err
	}
	return len(p), nil
}

// writeLarge sends a chunk without a copy of it.
func (s *http1Stream) writeLarge(head, p []byte) (int, error) {
	for _, part := range [][]byte{head, p, []byte("\r\n")} {
		if _, err := s.conn.Write(part); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (s *http1Stream) refuse(r *refusal) {
	retry := ""
	if r.retryAfter > 0 {
		retry = fmt.Sprintf("Retry-After: %d\r\n", r.retrySeconds())
	}
	s.refused = true
	_ = s.conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout)) // a closed connection fails below
	_, _ = fmt.Fprintf(s.conn, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n%s"+
		"Content-Length: %d\r\n\r\n%s\n", r.status, http.StatusText(r.status), retry, len(r.text)+1, r.text)
}

func (s *http1Stream) SetReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

func (s *http1Stream) BoundWrites(within time.Duration) error {
	if s.socket != nil {
		return s.socket.BoundWrites(within)
	}
	return s.conn.SetWriteDeadline(deadlineIn(within))
}

func (s *http1Stream) finish() {
	switch {
	case s.refused:
		s.linger()
	case s.started:
		_ = s.conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout)) // the peer may be gone
		_, _ = io.WriteString(s.conn, s.header+lastChunk)
	}
	_ = s.conn.Close()
}

// linger lets a peer that was refused find its answer.
func (s *http1Stream) linger() {
	raw := s.raw()
	_ = raw.SetReadDeadline(time.Now().Add(lingerTimeout))
	_, _ = io.CopyN(io.Discard, raw, lingerBytes)
}

// raw is the connection below TLS.
func (s *http1Stream) raw() net.Conn {
	if secured, ok := s.conn.(*tls.Conn); ok {
		return secured.NetConn()
	}
	return s.conn
}

// abort shuts the connection down, below TLS, which would try to say goodbye to a peer that may not listen. The descriptor
// stays open until the reader has seen it: one that is closed while it is parked is forgotten by the kernel without a word.
func (s *http1Stream) abort() {
	if s.socket == nil {
		s.close()
		return
	}
	_ = s.socket.Shutdown() // fails when the connection is closed already
}

func (s *http1Stream) close() { _ = s.raw().Close() }
