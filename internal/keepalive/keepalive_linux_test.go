package keepalive_test

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/farspeak/farspeak/internal/keepalive"
)

// The kernel has what was chosen for a connection, within bounds, and not the same for all.
func TestConnectionsHaveIntervalsOfTheirOwn(t *testing.T) {
	bound, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer bound.Close()
	listener := keepalive.Listener{Listener: bound}
	idles := map[int]bool{}
	for range 40 {
		client, err := net.Dial("tcp", bound.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		tcp := conn.(*net.TCPConn)
		idle := option(t, tcp, unix.TCP_KEEPIDLE)
		idles[idle] = true
		interval, probes := option(t, tcp, unix.TCP_KEEPINTVL), option(t, tcp, unix.TCP_KEEPCNT)
		if idle < 45 || idle > 75 || interval < 10 || interval > 20 || probes != 5 {
			t.Errorf("asked after %d s, then every %d s, %d times", idle, interval, probes)
		}
	}
	if len(idles) < 5 {
		t.Errorf("40 connections have only %d intervals", len(idles))
	}
}

func option(t *testing.T, conn *net.TCPConn, name int) (value int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { value, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, name) })
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return value
}
