package server_test

import (
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/server"
)

// A parked session holds less of the heap than the bare TLS connection below it would: what only the handshake needed is
// given up. Both ends are in this process; the agents' is the same for both.
func TestParkedSessionsAreSmallerThanTLS(t *testing.T) {
	const connections = 100
	f := start(t)
	bare := bareTLS(t)
	var kept []net.Conn
	each := func(open func() net.Conn) int64 {
		kept = append(kept, open()) // what is made once, is made now
		before, goroutines := liveHeap(), runtime.NumGoroutine()
		for range connections {
			kept = append(kept, open())
		}
		waitFor(t, "the goroutines to end", func() bool { return runtime.NumGoroutine() < goroutines+connections/10 })
		return (liveHeap() - before) / connections
	}
	floor := each(func() net.Conn { return openBare(t, bare) })
	session := each(func() net.Conn { return f.idle(t, "").raw })
	t.Logf("heap of both ends: %d bytes with a session, %d with TLS only", session, floor)
	if session > floor {
		t.Errorf("a session takes %d bytes more than its TLS connection", session-floor)
	}
	runtime.KeepAlive(kept)
}

// liveHeap is what the heap holds after collections: the first ones empty pools and run what hangs on certificates.
func liveHeap() int64 {
	for range 3 {
		runtime.GC()
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// bareTLS is a server that takes a byte, returns it, and then holds the connection.
func bareTLS(t testing.TB) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := server.TLSConfig(selfSigned(t, time.Now().Add(time.Hour)))
	held := make(chan net.Conn, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			plain, err := listener.Accept()
			if err != nil {
				return
			}
			conn := tls.Server(plain, config)
			var b [1]byte
			if _, err := conn.Read(b[:]); err == nil {
				_, _ = conn.Write(b[:])
			}
			held <- conn
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
		close(held)
		for conn := range held {
			_ = conn.Close()
		}
	})
	return listener.Addr().String()
}

// openBare connects an agent to it.
func openBare(t testing.TB, address string) net.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", address, newTestAgent(t, address).tls("http/1.1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(ioTimeout)); err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := conn.Write(b[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		t.Fatal(err)
	}
	return conn
}
