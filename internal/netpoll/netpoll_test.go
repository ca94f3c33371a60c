package netpoll_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/netpoll"
)

const patience = 10 * time.Second

// pair returns both ends of a TCP connection, the accepted one as a Conn.
func pair(t testing.TB) (accepted *netpoll.Conn, dialed net.Conn) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	dialed, err = net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	got, err := netpoll.Listener{Listener: inner}.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = got.Close(); _ = dialed.Close() })
	return netpoll.Of(got), dialed
}

func newPoller(t testing.TB) *netpoll.Poller {
	t.Helper()
	p, err := netpoll.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func arm(t testing.TB, p *netpoll.Poller, c *netpoll.Conn) <-chan struct{} {
	t.Helper()
	woken := make(chan struct{}, 1)
	if err := p.Arm(c, func() { woken <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	return woken
}

func await(t testing.TB, woken <-chan struct{}) {
	t.Helper()
	select {
	case <-woken:
	case <-time.After(patience):
		t.Fatal("nobody was called")
	}
}

func TestArmedConnectionWakesOnDataAgainAndAgain(t *testing.T) {
	p := newPoller(t)
	accepted, dialed := pair(t)
	accepted.Probe(true)
	buffer := make([]byte, 16)
	if _, err := accepted.Read(buffer); !errors.Is(err, netpoll.WouldBlock) {
		t.Fatalf("reading nothing: %v", err)
	}
	for range 3 {
		woken := arm(t, p, accepted)
		if _, err := dialed.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		await(t, woken)
		if n, err := accepted.Read(buffer); n != 1 || err != nil {
			t.Fatalf("read %d bytes, %v", n, err)
		}
	}
}

// What arrived before the arming counts.
func TestArmingIsLevelTriggered(t *testing.T) {
	p := newPoller(t)
	accepted, dialed := pair(t)
	if _, err := dialed.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	await(t, arm(t, p, accepted))
}

func TestPeerThatLeavesWakes(t *testing.T) {
	p := newPoller(t)
	accepted, dialed := pair(t)
	woken := arm(t, p, accepted)
	if err := dialed.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, woken)
	accepted.Probe(true)
	if _, err := accepted.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("reading after the end: %v", err)
	}
}

// Shutting down is how a connection is ended from outside: it wakes the owner.
func TestShutdownWakes(t *testing.T) {
	p := newPoller(t)
	accepted, _ := pair(t)
	woken := arm(t, p, accepted)
	if err := accepted.Shutdown(); err != nil {
		t.Fatal(err)
	}
	await(t, woken)
}

func TestClosedPollerRefuses(t *testing.T) {
	p, err := netpoll.New()
	if err != nil {
		t.Fatal(err)
	}
	accepted, _ := pair(t)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Arm(accepted, func() {}); !errors.Is(err, netpoll.ErrClosed) {
		t.Errorf("arming on a closed poller: %v", err)
	}
}

// Blocking reads work as before while the probing mode is off.
func TestBlockingRead(t *testing.T) {
	accepted, dialed := pair(t)
	go func() { _, _ = dialed.Write([]byte("hello")) }()
	buffer := make([]byte, 5)
	if _, err := io.ReadFull(accepted, buffer); err != nil || string(buffer) != "hello" {
		t.Errorf("read %q, %v", buffer, err)
	}
}

// more is more than the buffers of both sockets take.
const more = 32 << 20

// A peer that does not read ends a write that is bounded, when the time is up and not before.
func TestBoundedWriteEnds(t *testing.T) {
	accepted, _ := pair(t)
	const bound = 20 * time.Millisecond
	if err := accepted.BoundWrites(bound); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	n, err := accepted.Write(make([]byte, more))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == more {
		t.Errorf("wrote %d bytes, %v; want some, and the deadline", n, err)
	}
	if waited := time.Since(began); waited < bound {
		t.Errorf("gave up after %v", waited)
	}
	if n, err := accepted.Write([]byte("x")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the bound is for all writes together; the second wrote %d bytes, %v", n, err)
	}
}

// A write that has to wait goes on when the peer reads, and its bound ends with it.
func TestBoundedWriteWaits(t *testing.T) {
	accepted, dialed := pair(t)
	for range 2 {
		read := make(chan error, 1)
		go func() {
			_, err := io.CopyN(io.Discard, dialed, more)
			read <- err
		}()
		if err := accepted.BoundWrites(patience); err != nil {
			t.Fatal(err)
		}
		if n, err := accepted.Write(make([]byte, more)); n != more || err != nil {
			t.Fatalf("wrote %d bytes, %v", n, err)
		}
		if err := <-read; err != nil {
			t.Fatal(err)
		}
		if err := accepted.BoundWrites(time.Nanosecond); err != nil { // nobody waits, so nothing ends
			t.Fatal(err)
		}
		if err := accepted.BoundWrites(0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := accepted.Write([]byte("x")); err != nil {
		t.Errorf("writing without a bound: %v", err)
	}
}

// Shutting down ends a write that waits.
func TestShutdownEndsAWrite(t *testing.T) {
	accepted, _ := pair(t)
	if err := accepted.BoundWrites(time.Hour); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := accepted.Write(make([]byte, more))
		done <- err
	}()
	if err := accepted.Shutdown(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("writing to a connection that is shut down: %v", err)
	}
}

// More connections wake at once than one look at them takes.
func TestEveryConnectionWakes(t *testing.T) {
	p := newPoller(t)
	const connections = 300 // more than one wake-up takes
	var woken []<-chan struct{}
	for range connections {
		accepted, dialed := pair(t)
		if _, err := dialed.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		woken = append(woken, arm(t, p, accepted))
	}
	for _, w := range woken {
		await(t, w)
	}
}
