package harness

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// proxyOutgoing is the address from which a ForwardProxy connects, so that servers can tell its connections from others.
const proxyOutgoing = "127.0.0.2"

// ForwardProxy is a running tinyproxy, by which agents reach servers with CONNECT.
type ForwardProxy struct {
	*Process
	Address string
	// Outgoing is the IP address that servers see.
	Outgoing string
}

// StartForwardProxy runs a proxy until the test ends.
func (s *Site) StartForwardProxy(name string) *ForwardProxy {
	s.tb.Helper()
	path, err := exec.LookPath("tinyproxy")
	if err != nil {
		s.tb.Fatalf("tinyproxy is missing (Debian: apt-get install tinyproxy-bin): %v", err)
	}
	p := &ForwardProxy{Address: FreeAddress(s.tb), Outgoing: proxyOutgoing}
	host, port, err := net.SplitHostPort(p.Address)
	if err != nil {
		s.tb.Fatal(err)
	}
	config := filepath.Join(s.Dir, name+".conf")
	text := fmt.Sprintf("Listen %s\nPort %s\nBind %s\nAllow 127.0.0.1\nTimeout 600\nMaxClients 100\nLogLevel Connect\n", host, port, p.Outgoing)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		s.tb.Fatal(err)
	}
	p.Process = Start(s.tb, s.Dir, name, path, "-d", "-c", config)
	p.AwaitListening()
	return p
}

// AwaitListening waits until the proxy takes connections.
func (p *ForwardProxy) AwaitListening() {
	p.tb.Helper()
	Eventually(p.tb, startTimeout, p.Name+" listening", func() error {
		conn, err := net.DialTimeout("tcp", p.Address, time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// Connects is how often somebody asked for a connection to a server, by the proxy's own log.
func (p *ForwardProxy) Connects(server string) int {
	return strings.Count(p.Log(), ": CONNECT "+server+" HTTP/")
}
