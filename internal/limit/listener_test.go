package limit_test

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/farspeak/farspeak/internal/limit"
)

// peers is a listener to which a test adds connections.
type peers struct {
	net.Listener
	next chan net.Conn
}

func (p *peers) Accept() (net.Conn, error) {
	c, ok := <-p.next
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

// harness accepts on a Listener and keeps what it let in, in order.
type harness struct {
	*limit.Listener
	peers *peers

	mu       sync.Mutex
	accepted []net.Conn
	refused  []string
}

// newHarness has to run in a synctest bubble.
func newHarness(t *testing.T, cfg limit.Config) *harness {
	t.Helper()
	h := &harness{peers: &peers{next: make(chan net.Conn)}}
	cfg.OnRefuse = func(reason string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.refused = append(h.refused, reason)
	}
	l, err := limit.NewListener(h.peers, cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Listener = l
	ended := make(chan error)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			h.mu.Lock()
			h.accepted = append(h.accepted, c)
			h.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		close(h.peers.next)
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept ended with %v", err)
		}
	})
	return h
}

// connect brings one connection to the listener, and returns the peer's end once it was accepted or refused.
func (h *harness) connect() net.Conn {
	here, there := net.Pipe()
	h.peers.next <- there
	synctest.Wait()
	return here
}

func (h *harness) expect(t *testing.T, open, halfOpen int, refused ...string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.Open() != open || h.HalfOpen() != halfOpen || !slices.Equal(h.refused, refused) {
		t.Errorf("%d open, %d half-open, refused %q; want %d, %d, %q", h.Open(), h.HalfOpen(), h.refused, open, halfOpen, refused)
	}
}

func isClosed(t *testing.T, peer net.Conn) bool {
	t.Helper()
	_ = peer.SetReadDeadline(time.Now().Add(time.Nanosecond))
	_, err := peer.Read(make([]byte, 1))
	return errors.Is(err, io.EOF)
}

func TestMaxOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, limit.Config{Max: 2})
		first, second := h.connect(), h.connect()
		h.expect(t, 2, 0)
		third := h.connect()
		h.expect(t, 2, 0, limit.ReasonFull)
		if !isClosed(t, third) || isClosed(t, first) || isClosed(t, second) {
			t.Error("the wrong connection was closed")
		}
		for range 2 { // a second Close counts nothing
			_ = h.accepted[0].Close()
		}
		h.expect(t, 1, 0, limit.ReasonFull)
		if fourth := h.connect(); isClosed(t, fourth) {
			t.Error("refused although there is room again")
		}
		h.expect(t, 2, 0, limit.ReasonFull)
	})
}

func TestHalfOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, limit.Config{Max: 10, MaxHalfOpen: 2})
		established, silent := h.connect(), h.connect()
		h.expect(t, 2, 2)
		early := h.connect()
		h.expect(t, 2, 2, limit.ReasonHalfOpen)
		if !isClosed(t, early) {
			t.Error("one too many is not closed")
		}
		if err := limit.Established(layer{h.accepted[0]}); err != nil {
			t.Fatal(err)
		}
		h.expect(t, 2, 1, limit.ReasonHalfOpen)
		h.connect()
		time.Sleep(limit.HalfOpenGrace)
		if late := h.connect(); isClosed(t, late) {
			t.Error("the newest was closed in place of the oldest")
		}
		h.expect(t, 3, 2, limit.ReasonHalfOpen, limit.ReasonSilent)
		if !isClosed(t, silent) || isClosed(t, established) {
			t.Error("the wrong connection had to make room")
		}
		_ = h.accepted[1].Close() // by its owner, who sees that it broke
		h.expect(t, 3, 2, limit.ReasonHalfOpen, limit.ReasonSilent)
		_ = h.accepted[2].Close()
		h.expect(t, 2, 1, limit.ReasonHalfOpen, limit.ReasonSilent)
	})
}

// The half-open make room also when everything is full.
func TestHalfOpenWhenFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, limit.Config{Max: 1, MaxHalfOpen: 1})
		silent := h.connect()
		time.Sleep(limit.HalfOpenGrace)
		if next := h.connect(); isClosed(t, next) || !isClosed(t, silent) {
			t.Error("a silent connection keeps the only place")
		}
		h.expect(t, 1, 1, limit.ReasonSilent)
	})
}

// layer stands for TLS.
type layer struct{ net.Conn }

func (l layer) NetConn() net.Conn { return l.Conn }

func TestEstablishedNeedsItsListener(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if err := limit.Established(layer{a}); err == nil {
		t.Error("no error for a connection that is not counted")
	}
}

func TestNewListenerRefusesBadConfig(t *testing.T) {
	for _, cfg := range []limit.Config{{}, {Max: -1}, {Max: 1, MaxHalfOpen: -1}} {
		if l, err := limit.NewListener(nil, cfg); err == nil || l != nil {
			t.Errorf("%+v: %v, error %v", cfg, l, err)
		}
	}
}

// On real sockets: many silent peers beside one that talks, and a refused one sees it at once.
func TestSilentPeersOnSockets(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := limit.NewListener(inner, limit.Config{Max: 50})
	if err != nil {
		t.Fatal(err)
	}
	var handlers sync.WaitGroup
	handlers.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			handlers.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	good, err := dial(t, inner)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := good.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(good, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	dialled := []net.Conn{good}
	for i := range 60 {
		c, err := dial(t, inner)
		if i < 49 {
			if err != nil {
				t.Fatal(err)
			}
			dialled = append(dialled, c)
			continue
		}
		if err == nil { // the reset may come before or after the connection is there
			_, err = c.Read(make([]byte, 1))
		}
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d is not refused: %v", i, err)
		}
	}
	if l.Open() != 50 {
		t.Errorf("%d open", l.Open())
	}
	if _, err := good.Write([]byte("y")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(good, make([]byte, 1)); err != nil {
		t.Errorf("the one that talks: %v", err)
	}
	for _, c := range dialled {
		_ = c.Close()
	}
	_ = l.Close()
	handlers.Wait()
	if l.Open() != 0 {
		t.Errorf("%d open at the end", l.Open())
	}
}

func dial(t *testing.T, l net.Listener) (net.Conn, error) {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, c.SetDeadline(time.Now().Add(10 * time.Second))
}
