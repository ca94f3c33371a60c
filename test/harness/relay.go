package harness

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// relayDialTimeout bounds a relay's way to what is behind it, on the same machine.
const relayDialTimeout = 5 * time.Second

// Relay hands connections on as they are, counts them, and cuts them on demand.
type Relay struct {
	Address string

	behind   string // empty for a black hole
	listener net.Listener
	running  sync.WaitGroup

	mu       sync.Mutex
	open     map[net.Conn]bool
	accepted int
	closed   bool
}

// StartRelay relays to an address until the test ends.
func StartRelay(tb testing.TB, behind string) *Relay {
	tb.Helper()
	r := &Relay{Address: FreeAddress(tb), behind: behind, open: make(map[net.Conn]bool)}
	var err error
	if r.listener, err = net.Listen("tcp", r.Address); err != nil {
		tb.Fatal(err)
	}
	r.running.Go(r.accept)
	tb.Cleanup(r.close)
	return r
}

// StartBlackHole takes connections and all that comes over them, and never says a word.
func StartBlackHole(tb testing.TB) *Relay {
	tb.Helper()
	return StartRelay(tb, "")
}

func (r *Relay) accept() {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		r.accepted++
		r.mu.Unlock()
		r.running.Go(func() { r.serve(conn) })
	}
}

// serve returns when both ways are done; the end of one is the end of the other.
func (r *Relay) serve(near net.Conn) {
	defer r.drop(near)
	if !r.hold(near) {
		return
	}
	if r.behind == "" {
		_, _ = io.Copy(io.Discard, near)
		return
	}
	far, err := net.DialTimeout("tcp", r.behind, relayDialTimeout)
	if err != nil {
		return
	}
	defer r.drop(far)
	if !r.hold(far) {
		return
	}
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(far, near)
		r.drop(far)
	})
	_, _ = io.Copy(near, far)
	r.drop(near)
	up.Wait()
}

// hold notes a connection for Cut; it fails when the relay is closed.
func (r *Relay) hold(conn net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.open[conn] = true
	}
	return !r.closed
}

// drop closes a connection, which may have been done before.
func (r *Relay) drop(conn net.Conn) {
	_ = conn.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, conn)
}

// Accepted is how many connections came.
func (r *Relay) Accepted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}

// Cut ends the connections that there are. New ones are taken as before.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.open {
		_ = conn.Close()
	}
}

func (r *Relay) close() {
	_ = r.listener.Close()
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.Cut()
	r.running.Wait()
}
