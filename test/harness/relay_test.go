package harness_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/farspeak/farspeak/test/harness"
)

// relayPatience bounds what takes a moment on one machine.
const relayPatience = 10 * time.Second

// A relay passes bytes both ways, ends both connections of a pair when it is told to, and takes new ones after that.
func TestRelay(t *testing.T) {
	relay := harness.StartRelay(t, listenEchoing(t))
	for n := range 2 {
		conn, reader := dialRelay(t, relay)
		if _, err := fmt.Fprintln(conn, "hello"); err != nil {
			t.Fatal(err)
		}
		if line, err := reader.ReadString('\n'); line != "hello\n" {
			t.Fatalf("%q came back: %v", line, err)
		}
		relay.Cut()
		if rest, err := io.ReadAll(reader); len(rest) > 0 || isTimeout(err) {
			t.Errorf("after the cut came %q, %v", rest, err)
		}
		if relay.Accepted() != n+1 {
			t.Errorf("%d connections are counted, want %d", relay.Accepted(), n+1)
		}
	}
}

func TestBlackHole(t *testing.T) {
	hole := harness.StartBlackHole(t)
	conn, reader := dialRelay(t, hole)
	if _, err := conn.Write(make([]byte, 1<<20)); err != nil {
		t.Errorf("it does not take what comes: %v", err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if b, err := reader.ReadByte(); !isTimeout(err) {
		t.Errorf("it said %q, %v", b, err)
	}
	hole.Cut()
	if hole.Accepted() != 1 {
		t.Errorf("%d connections are counted", hole.Accepted())
	}
}

func dialRelay(t *testing.T, relay *harness.Relay) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", relay.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(relayPatience)); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}

// listenEchoing sends back what comes.
func listenEchoing(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { _ = listener.Close(); <-ended })
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(conn, conn)
			_ = conn.Close()
		}
	}()
	return listener.Addr().String()
}
