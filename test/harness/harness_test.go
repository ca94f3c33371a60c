package harness_test

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/farspeak/farspeak/test/harness"
)

func TestProcess(t *testing.T) {
	dir := t.TempDir()
	p := harness.Start(t, dir, "sleeper", "/bin/sh", "-c", "echo began; exec sleep 600")
	harness.Eventually(t, 10*time.Second, "output", func() error {
		if !strings.Contains(p.Log(), "began") {
			return errors.New(p.Log())
		}
		return nil
	})
	if size := p.ResidentBytes(); size < 10<<10 || size > 1<<30 {
		t.Errorf("resident: %d bytes", size)
	}
	first := p.PID()
	p.Kill()
	if p.Running() {
		t.Error("running after Kill")
	}
	p.Restart()
	if !p.Running() || p.PID() == first {
		t.Error("not running after Restart")
	}
	p.Signal(syscall.SIGTERM)
	if err := p.WaitEnd(10 * time.Second); err == nil {
		t.Error("a process that died of a signal reports success")
	}
}

// The balancer hands connections to each server with the PROXY header that it was told to send.
func TestBalancerSendsProxyHeaders(t *testing.T) {
	health := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(health.Close)
	site := harness.NewSite(t, nil)
	heads := make(chan []byte, 16)
	v1, v2 := listen(t, heads), listen(t, heads)
	healthAddress := strings.TrimPrefix(health.URL, "http://")
	balancer := site.StartTCPBalancer("balancer",
		harness.Behind{Address: v1, HealthAddress: healthAddress, Options: "send-proxy"},
		harness.Behind{Address: v2, HealthAddress: healthAddress, Options: "send-proxy-v2"})
	var text, binary bool
	for !text || !binary {
		conn, err := net.Dial("tcp", balancer.Address)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case head := <-heads:
			text = text || bytes.HasPrefix(head, []byte("PROXY TCP4 127.0.0.1 "))
			binary = binary || bytes.HasPrefix(head, []byte("\r\n\r\n\x00\r\nQUIT\n"))
		case <-time.After(10 * time.Second):
			t.Fatal("no connection came through")
		}
		_ = conn.Close()
	}
}

// listen reports the first bytes of each connection.
func listen(t *testing.T, heads chan<- []byte) string {
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
			head := make([]byte, 64)
			n, _ := conn.Read(head)
			select {
			case heads <- head[:n]:
			default:
			}
			_ = conn.Close()
		}
	}()
	return listener.Addr().String()
}

func TestFreeAddressIsHandedOutOnce(t *testing.T) {
	seen := make(map[string]bool)
	for range 50 {
		address := harness.FreeAddress(t)
		if seen[address] {
			t.Fatalf("%s twice", address)
		}
		seen[address] = true
	}
}
