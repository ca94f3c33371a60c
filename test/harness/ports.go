package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// Listening ports are taken from below the range of the kernel's own choice, so that no outgoing connection sits on the
// port of a daemon that is being restarted.
const (
	firstPort = 18000
	lastPort  = 31999
)

var ports = struct {
	mu    sync.Mutex
	taken map[int]bool
}{taken: make(map[int]bool)}

// FreeAddress is a loopback address, host:port, on which nobody listens. It is handed out once.
func FreeAddress(tb testing.TB) string {
	tb.Helper()
	ports.mu.Lock()
	defer ports.mu.Unlock()
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if ports.taken[port] {
			continue
		}
		listener, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		_ = listener.Close()
		ports.taken[port] = true
		return address
	}
	tb.Fatalf("no free port between %d and %d", firstPort, lastPort)
	return ""
}
