package server

import (
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/wire"
)

// http2Stream is one stream of an HTTP/2 connection. The library takes everything back when the handler returns, so
// nothing of it may be touched after detach.
type http2Stream struct {
	body    io.Reader
	w       http.ResponseWriter
	control *http.ResponseController
	promise promise

	mu       sync.Mutex
	aborted  bool // guarded by mu
	detached bool // guarded by mu: the handler returns
}

func (s *http2Stream) Read(p []byte) (int, error) { return s.body.Read(p) }

func (s *http2Stream) start() {
	s.w.Header().Set(wire.FeaturesHeader, s.promise.features)
	if s.promise.lifetime > 0 {
		s.w.Header().Set(wire.SessionLifetimeHeader, wire.FormatLifetime(s.promise.lifetime))
	}
	s.w.WriteHeader(http.StatusOK)
}

func (s *http2Stream) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, s.control.Flush()
}

func (s *http2Stream) refuse(r *refusal) { r.answer(s.w) }

// finish has nothing to do: the library ends the stream when the handler returns.
func (s *http2Stream) finish() {}

// SetReadDeadline leaves the deadline of an aborted stream in the past.
func (s *http2Stream) SetReadDeadline(t time.Time) error {
	return s.unlessAborted(func() error { return s.control.SetReadDeadline(t) })
}

// BoundWrites does the same with the deadline of writes. Here one that passes resets the stream, whether anything is written or
// not.
func (s *http2Stream) BoundWrites(within time.Duration) error {
	return s.unlessAborted(func() error { return s.control.SetWriteDeadline(deadlineIn(within)) })
}

// deadlineIn is the deadline of what may take that long; none for 0.
func deadlineIn(within time.Duration) time.Time {
	if within == 0 {
		return time.Time{}
	}
	return time.Now().Add(within)
}

func (s *http2Stream) unlessAborted(set func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborted || s.detached {
		return os.ErrDeadlineExceeded
	}
	return set()
}

// abort resets the stream.
func (s *http2Stream) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborted || s.detached {
		return
	}
	s.aborted = true
	past := time.Unix(1, 0)
	_ = s.control.SetReadDeadline(past) // neither fails on HTTP/2
	_ = s.control.SetWriteDeadline(past)
}

// ready is not known.
func (s *http2Stream) ready() bool { return false }

// park does not: the library's goroutines are there in any case.
func (s *http2Stream) park(func()) bool { return false }

// close has nothing to do: the library takes everything back.
func (s *http2Stream) close() {}

// detach says that the handler is about to return.
func (s *http2Stream) detach() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.detached = true
}
