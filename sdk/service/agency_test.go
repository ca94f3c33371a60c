package service_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	"github.com/farspeak/farspeak/sdk/service"
)

var (
	_ service.Conn = (*service.Daemon)(nil)
	_ service.Conn = (*service.Socket)(nil)
)

var errRefused = errors.New("refused")

// agency is where the Socket of a test connects. The test decides about each connection.
type agency struct {
	t     *testing.T
	dials chan chan net.Conn // each try to connect, and where its connection goes

	mu     sync.Mutex
	failed []error
}

func newAgency(t *testing.T) *agency {
	t.Helper()
	return &agency{t: t, dials: make(chan chan net.Conn)}
}

// open opens a Socket that connects here.
func (a *agency) open(cfg service.SocketConfig) *service.Socket {
	cfg.Failed = a.note
	return service.OpenSocketForTest(cfg, a.dial)
}

func (a *agency) dial(ctx context.Context) (net.Conn, error) {
	answer := make(chan net.Conn, 1)
	select {
	case a.dials <- answer:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if conn := <-answer; conn != nil {
		return conn, nil
	}
	return nil, errRefused
}

// accept waits for the next try to connect and makes it succeed.
func (a *agency) accept() *socketPeer {
	here, there := net.Pipe()
	p := &socketPeer{peer: peer{tb: a.t, in: here, out: here}, conn: here, frames: make(chan *fspb.Message, 10_000)}
	<-a.dials <- there
	return p
}

// greet accepts a connection, exchanges what comes before messages, and reads what follows.
func (a *agency) greet() *socketPeer {
	p := a.accept()
	p.peer.greet("7")
	p.reading.Go(p.read)
	return p
}

// refuse waits for the next try to connect and makes it fail.
func (a *agency) refuse() { <-a.dials <- nil }

func (a *agency) note(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = append(a.failed, err)
}

func (a *agency) failures() []error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failed
}

// socketPeer is the agent's end of one connection.
type socketPeer struct {
	peer
	conn    net.Conn
	frames  chan *fspb.Message // what the program sent; closed at the end
	reading sync.WaitGroup
}

func (p *socketPeer) read() {
	defer close(p.frames)
	for {
		m, err := p.receive()
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
				p.tb.Errorf("peer: read: %v", err)
			}
			return
		}
		p.frames <- m
	}
}

// texts takes n messages.
func (p *socketPeer) texts(n int) (texts []string, ids [][]byte) {
	for range n {
		select {
		case m := <-p.frames:
			texts, ids = append(texts, textOf(m)), append(ids, m.GetSourceMessageId())
		case <-time.After(time.Hour): // of the bubble
			p.tb.Errorf("%d messages came, want %d", len(texts), n)
			return texts, ids
		}
	}
	return texts, ids
}

// hangUp ends the connection.
func (p *socketPeer) hangUp() {
	p.conn.Close()
	p.reading.Wait()
}

func mustSend(t *testing.T, s *service.Socket, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err := s.Send(t.Context(), toBackend(t, text)); err != nil {
			t.Error(err)
		}
	}
}
