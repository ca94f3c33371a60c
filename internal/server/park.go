package server

import (
	"bufio"
	"crypto/tls"
	"errors"
	"sync"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/netpoll"
	"github.com/farspeak/farspeak/internal/tlsidle"
)

// How an HTTP/1.1 session waits: without a goroutine and without a buffer, in the poller that all sessions share.

// errParked says that a session has nothing to read and waits without a goroutine.
var errParked = errors.New("parked")

// readBuffers holds the buffers of parked sessions.
var readBuffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, sessionBuffer) }}

// Read returns decoded bytes of the body.
func (s *http1Stream) Read(p []byte) (int, error) {
	s.takeBuffer()
	return s.body.Read(p)
}

// ready says whether Read has something to return without waiting for the peer.
func (s *http1Stream) ready() bool {
	s.takeBuffer()
	return s.body.ready()
}

func (s *http1Stream) takeBuffer() {
	if s.buffer == nil {
		s.buffer = readBuffers.Get().(*bufio.Reader)
		s.buffer.Reset(s.conn)
	}
}

// park waits for the peer in the poller, unless something is there already. No deadline for reads may be running.
func (s *http1Stream) park(resume func()) bool {
	if s.socket == nil {
		return false
	}
	for !s.ready() {
		if s.drained() { // the poller, armed, sees for itself whether more has arrived
			return s.arm(resume)
		}
		switch err := s.fill(); {
		case err == nil:
			s.woken = false
		case errors.Is(err, netpoll.WouldBlock):
			s.ahead = false
			return s.arm(resume)
		default:
			s.err = noEOF(err)
		}
	}
	return false
}

// drained says that there is nothing to read outside of the socket, and no word that there is something inside.
func (s *http1Stream) drained() bool {
	if s.ahead || s.woken || s.buffer.Buffered() > 0 {
		return false
	}
	secured, ok := s.conn.(*tls.Conn)
	return !ok || tlsidle.Drained(secured)
}

// fill reads what has arrived, and waits for nothing. TLS takes WouldBlock for a timeout, and goes on after it.
func (s *http1Stream) fill() error {
	s.socket.Probe(true)
	defer s.socket.Probe(false)
	_, err := s.buffer.Peek(s.buffer.Buffered() + 1)
	return err
}

// arm hands the stream to the poller; from there on it belongs to resume. It makes it small before.
func (s *http1Stream) arm(resume func()) bool {
	if s.buffer.Buffered() == 0 {
		s.buffer.Reset(nil)
		readBuffers.Put(s.buffer)
		s.buffer = nil
	}
	if secured, ok := s.conn.(*tls.Conn); ok {
		tlsidle.Shrink(secured)
	}
	s.woken = true // once it is armed, the stream is not ours any more
	if err := s.idle.arm(s.socket, resume); err != nil {
		glog.V(1).Infof("a session waits in its goroutine: %v", err)
		return false
	}
	return true
}

// idlePoller is the poller of all sessions. It is made for the first session that is parked.
type idlePoller struct {
	mu     sync.Mutex
	poller *netpoll.Poller // guarded by mu
	closed bool            // guarded by mu
}

func (p *idlePoller) arm(socket *netpoll.Conn, resume func()) error {
	poller, err := p.get()
	if err != nil {
		return err
	}
	return poller.Arm(socket, resume)
}

func (p *idlePoller) get() (*netpoll.Poller, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, netpoll.ErrClosed
	}
	if p.poller != nil {
		return p.poller, nil
	}
	var err error
	p.poller, err = netpoll.New()
	return p.poller, err
}

// close ends the poller. There are no sessions any more.
func (p *idlePoller) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.poller == nil {
		return nil
	}
	return p.poller.Close()
}
