package server

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/wire"
)

// stream is the transport below a session: the decoded body of a request that never ends, and the body of its response.
// A stream has one reader and one writer at a time; they may run side by side.
type stream interface {
	io.Reader
	// start sends the response header. Nothing is written before.
	start() error
	// Write sends p at once. p is not kept.
	io.Writer
	// refuse answers instead of start, as far as the transport still can.
	refuse(*refusal)
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	// finish ends the response in order, abort cuts the connection. Both end a blocked Read.
	finish()
	abort()
}

// openStream takes the connection of an HTTP/1.1 request over; on HTTP/2 it works through the library, whose streams
// cannot be taken over.
func openStream(w http.ResponseWriter, r *http.Request) (stream, error) {
	if r.ProtoMajor >= 2 {
		control := http.NewResponseController(w)
		if err := control.EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return nil, err
		}
		return &http2Stream{Reader: r.Body, w: w, ResponseController: control}, nil
	}
	return hijack(w, r)
}

// http1Stream is a hijacked connection. What net/http keeps for a request (buffers, goroutines, the parsed header) is
// garbage once it is taken over.
type http1Stream struct {
	io.Reader
	conn net.Conn
}

// hijack takes the connection and, when the peer waits for it, tells it to send its body.
func hijack(w http.ResponseWriter, r *http.Request) (*http1Stream, error) {
	chunked := len(r.TransferEncoding) > 0
	length := r.ContentLength
	expects := r.Header.Get("Expect") != ""
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("taking the connection over: %w", err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		_ = conn.Close()
		return nil, err
	}
	if expects {
		if _, err := io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return &http1Stream{Reader: bodyOf(buffered.Reader, chunked, length), conn: conn}, nil
}

// bodyOf decodes a request body by its framing.
func bodyOf(r *bufio.Reader, chunked bool, length int64) io.Reader {
	if chunked {
		return httputil.NewChunkedReader(r)
	}
	return io.LimitReader(r, length)
}

func (s *http1Stream) start() error {
	_, err := io.WriteString(s.conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"+
		wire.FeaturesHeader+": "+wire.ServerFeatures+"\r\n\r\n")
	return err
}

// chunkBuffers holds buffers in which a chunk is put together, so that it leaves in one TLS record.
var chunkBuffers = sync.Pool{New: func() any { return new([]byte) }}

// maxKeptBuffer bounds what a pool keeps.
const maxKeptBuffer = 64 << 10

func (s *http1Stream) Write(p []byte) (int, error) {
	kept := chunkBuffers.Get().(*[]byte)
	chunk := strconv.AppendUint((*kept)[:0], uint64(len(p)), 16)
	chunk = append(chunk, "\r\n"...)
	chunk = append(chunk, p...)
	chunk = append(chunk, "\r\n"...)
	_, err := s.conn.Write(chunk)
	if cap(chunk) <= maxKeptBuffer {
		*kept = chunk
		chunkBuffers.Put(kept)
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *http1Stream) refuse(r *refusal) {
	retry := ""
	if r.retryAfter > 0 {
		retry = fmt.Sprintf("Retry-After: %d\r\n", max(1, int(r.retryAfter/time.Second)))
	}
	_, _ = fmt.Fprintf(s.conn, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n%s"+
		"Content-Length: %d\r\n\r\n%s\n", r.status, http.StatusText(r.status), retry, len(r.text)+1, r.text)
}

func (s *http1Stream) SetReadDeadline(t time.Time) error  { return s.conn.SetReadDeadline(t) }
func (s *http1Stream) SetWriteDeadline(t time.Time) error { return s.conn.SetWriteDeadline(t) }

func (s *http1Stream) finish() {
	_, _ = io.WriteString(s.conn, "0\r\n\r\n") // the peer may be gone
	_ = s.conn.Close()
}

// abort closes the connection below TLS, which would try to say goodbye to a peer that may not listen.
func (s *http1Stream) abort() {
	if secured, ok := s.conn.(*tls.Conn); ok {
		_ = secured.NetConn().Close()
		return
	}
	_ = s.conn.Close()
}

// http2Stream is one stream of an HTTP/2 connection. It lives as long as its handler does.
type http2Stream struct {
	io.Reader
	*http.ResponseController
	w http.ResponseWriter

	mu      sync.Mutex
	aborted bool // guarded by mu
}

func (s *http2Stream) start() error {
	s.w.Header().Set(wire.FeaturesHeader, wire.ServerFeatures)
	s.w.WriteHeader(http.StatusOK)
	return s.Flush()
}

func (s *http2Stream) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, s.Flush()
}

func (s *http2Stream) refuse(r *refusal) { r.answer(s.w) }

func (s *http2Stream) finish() { s.abort() }

// SetReadDeadline leaves the deadline of an aborted stream in the past.
func (s *http2Stream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborted {
		return os.ErrDeadlineExceeded
	}
	return s.ResponseController.SetReadDeadline(t)
}

// abort makes a blocked Read return; the stream itself ends with its handler.
func (s *http2Stream) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	past := time.Unix(1, 0)
	s.aborted = true
	_ = s.ResponseController.SetReadDeadline(past)
	_ = s.ResponseController.SetWriteDeadline(past)
}
