package server

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// stream is the transport below a session: the decoded body of a request that never ends, and the body of its response.
//
// Its reading side belongs to the goroutine that serves the session. The writing side belongs to whoever holds the
// session's lock for it. abort may be called by anyone at any time, even after the end.
type stream interface {
	io.Reader
	SetReadDeadline(time.Time) error
	// ready says that the next Read does not wait for the peer. False may also mean that this transport cannot tell.
	ready() bool
	// park gives the goroutine of the reader up while nothing arrives. When it returns true, resume is called once there is
	// something, or the end, and the reading side belongs to whoever resume starts; the caller must not touch the session
	// any more. False means that Read has something, or that this transport can only wait in Read.
	park(resume func()) bool

	// start chooses the answer that a session gets; its header leaves with the first Write.
	start()
	// Write sends p at once. p is not kept.
	io.Writer
	// BoundWrites bounds how long the writes that follow may wait for the peer. 0 means that none is under way.
	BoundWrites(time.Duration) error
	// refuse answers instead of start.
	refuse(*refusal)
	// finish ends the answer in order. Nothing is read or written after it.
	finish()

	// abort cuts the stream. It ends a blocked Read and a blocked Write, and resumes a parked reader, which then closes.
	abort()
	// close gives back what the stream holds. It belongs to the reading side, as its last.
	close()
}

// goodbyeTimeout bounds what is said at the end of a stream: nobody has to listen.
const goodbyeTimeout = 2 * time.Second

// openStream takes the connection of an HTTP/1.1 request over; on HTTP/2 it works through the library, whose streams
// cannot be taken over.
func (s *Server) openStream(w http.ResponseWriter, r *http.Request, p promise) (stream, error) {
	if r.ProtoMajor < 2 {
		return hijack(w, r, &s.idle, p)
	}
	control := http.NewResponseController(w)
	if err := control.EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, err
	}
	// The deadlines so far are those of a request without a body.
	if err := errors.Join(control.SetReadDeadline(time.Time{}), control.SetWriteDeadline(time.Time{})); err != nil {
		return nil, err
	}
	return &http2Stream{body: r.Body, w: w, control: control, promise: p}, nil
}
