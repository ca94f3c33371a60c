package harness

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Behind is one server behind a balancer.
type Behind struct {
	Address string
	// HealthAddress is asked GET /readyz; the server gets connections as long as it answers 200.
	HealthAddress string
	// Options are HAProxy's own, such as "send-proxy-v2".
	Options string
}

// Balancer is a running HAProxy that hands connections to servers in turn.
type Balancer struct {
	*Process
	Address string
}

// StartTCPBalancer balances connections.
func (s *Site) StartTCPBalancer(name string, servers ...Behind) *Balancer {
	s.tb.Helper()
	return startBalancer(s.tb, s.Dir, name, "tcp", "", "", servers)
}

// StartH2Balancer balances the requests of plaintext HTTP/2 connections, as gRPC makes them.
func (s *Site) StartH2Balancer(name string, servers ...Behind) *Balancer {
	s.tb.Helper()
	return startBalancer(s.tb, s.Dir, name, "http", " proto h2", " proto h2 check-proto h1", servers)
}

func startBalancer(tb testing.TB, dir, name, mode, bindOptions, serverOptions string, servers []Behind) *Balancer {
	tb.Helper()
	path, err := exec.LookPath("haproxy")
	if err != nil {
		path = "/usr/sbin/haproxy" // not in every user's PATH
		if _, err := os.Stat(path); err != nil {
			tb.Fatalf("HAProxy is missing (Debian: apt-get install haproxy): %v", err)
		}
	}
	address := FreeAddress(tb)
	var config strings.Builder
	fmt.Fprintf(&config, `global
	log stdout format raw local0 notice
	maxconn 2000
	no strict-limits
	hard-stop-after 1s
defaults
	log global
	mode %s
	timeout connect 5s
	timeout client 15m
	timeout server 15m
	timeout check 2s
	retries 3
	option redispatch
listen balanced
	bind %s%s
	balance roundrobin
	option httpchk GET /readyz
	http-check expect status 200
	default-server inter 200ms fall 2 rise 1
`, mode, address, bindOptions)
	for i, server := range servers {
		_, port, err := net.SplitHostPort(server.HealthAddress)
		if err != nil {
			tb.Fatal(err)
		}
		fmt.Fprintf(&config, "\tserver s%d %s check port %s%s %s\n", i, server.Address, port, serverOptions, server.Options)
	}
	configPath := filepath.Join(dir, name+".cfg")
	if err := os.WriteFile(configPath, []byte(config.String()), 0o600); err != nil {
		tb.Fatal(err)
	}
	b := &Balancer{Process: Start(tb, dir, name, path, "-db", "-f", configPath), Address: address}
	b.awaitListening(tb)
	return b
}

func (b *Balancer) awaitListening(tb testing.TB) {
	tb.Helper()
	Eventually(tb, 10*time.Second, b.Name+" listening", func() error {
		conn, err := net.DialTimeout("tcp", b.Address, time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// Behind describes this server to a balancer.
func (s *Server) Behind(options string) Behind {
	return Behind{Address: s.ClientAddress, HealthAddress: s.HealthAddress, Options: options}
}

// Behind describes this fs-admin to a balancer.
func (a *Admin) Behind(options string) Behind {
	return Behind{Address: a.Address, HealthAddress: a.HealthAddress, Options: options}
}
