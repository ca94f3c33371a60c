package netpoll_test

import (
	"errors"
	"io"
	"net"
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
