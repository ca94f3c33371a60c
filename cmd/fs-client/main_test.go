package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/agent"
	"github.com/farspeak/farspeak/internal/config/agentconfig"
	"github.com/farspeak/farspeak/internal/daemon/run"
)

// site is a configuration in a temporary directory.
type site struct{ config, state, directory string }

func newSite(t *testing.T, server string) site {
	t.Helper()
	dir := t.TempDir()
	s := site{config: filepath.Join(dir, "client.config"), state: filepath.Join(dir, "state"), directory: filepath.Join(dir, "conf")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	write(t, s.config, fmt.Sprintf("trusted_certs: %q\nserver: %q\nclient_label: 'red'\nstreaming: true\nserver_name: 'fleet'\n"+
		"client_certificate_header: 'client-certificate'\nproxy: 'http://proxy:3128'\n"+
		"filesystem_handler { configuration_directory: %q state_file: %q }\n", certificate, server, s.directory, s.state))
	write(t, filepath.Join(s.directory, "communicator.txt"), "compression: COMPRESSION_DEFLATE prefer_http2: true "+
		"max_poll_delay_seconds: 1 max_buffer_delay_seconds: 2 min_failure_delay_seconds: 3 failure_suicide_time_seconds: 4")
	write(t, filepath.Join(s.directory, "textservices", "noop"), "name: 'sink' factory: 'NOOP'")
	write(t, filepath.Join(s.directory, "textservices", "broken"), "name: ")
	return s
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAgentConfig(t *testing.T) {
	s := newSite(t, "fleet.test:443")
	file, err := agentconfig.Client(s.config)
	if err != nil {
		t.Fatal(err)
	}
	c := agentConfig(&options{config: s.config}, file)
	l := c.Link
	if !slices.Equal(l.Servers, []string{"fleet.test:443"}) || !l.Streaming || !l.Deflate || !l.PreferHTTP2 || l.Roots == nil ||
		l.ServerName != "fleet" || l.Proxy.Host != "proxy:3128" || l.CertificateHeader != "client-certificate" || l.Version == "" {
		t.Errorf("link is %+v", l)
	}
	if l.MaxPollDelay != time.Second || l.MaxBufferDelay != 2*time.Second || l.MaxFailureDelay != 3*time.Second ||
		l.LonelyLimit != 4*time.Second {
		t.Errorf("delays are %v, %v, %v, %v", l.MaxPollDelay, l.MaxBufferDelay, l.MaxFailureDelay, l.LonelyLimit)
	}
	if len(c.Labels) != 3 || c.Labels[2] != "red" || c.State.String() != "state file "+s.state {
		t.Errorf("labels %q, %v", c.Labels, c.State)
	}
	if len(c.Services) != 1 || c.Services[0].Config.Name != "sink" || !strings.HasSuffix(c.Services[0].Origin, "noop") {
		t.Errorf("services are %v", c.Services)
	}
}

// serveOnce runs the process with its exit code.
func serveOnce(ctx context.Context, p *process) int {
	return run.Run(run.Program{Name: "fs-client", Serve: func(context.Context) error { return p.serve(ctx) }})
}

func TestExitCodes(t *testing.T) {
	p := newProcess(&options{})
	for code, err := range map[int]error{
		0: nil,
		1: errors.New("no way"),
		2: fmt.Errorf("%w: 3s", agent.ErrLonely),
		7: fmt.Errorf("%w, by force", agent.ErrDie),
	} {
		if got := run.Run(run.Program{Serve: func(context.Context) error { return p.exit(err) }}); got != code {
			t.Errorf("%v: exit code %d, want %d", err, got, code)
		}
	}
}

func TestStopReloadAndLock(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	s := newSite(t, listener.Addr().String())
	content, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.config, strings.Replace(string(content), "proxy: 'http://proxy:3128'\n", "", 1))
	o := &options{config: s.config, profileDir: t.TempDir()}
	p := newProcess(o)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	code := make(chan int, 1)
	go func() { code <- serveOnce(ctx, p) }() // waited for at the end
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := serveOnce(t.Context(), newProcess(o)); got != 1 {
		t.Errorf("a second agent on the same state ends with %d", got)
	}
	p.hangup(ctx)
	again, err := listener.Accept() // of the instance after the reload, at the latest
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	stop()
	select {
	case got := <-code:
		if got != 0 {
			t.Errorf("exit code %d", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the process does not stop")
	}
}

func TestReloadOfARefusedFileEndsTheProcess(t *testing.T) {
	s := newSite(t, "127.0.0.1:1")
	p := newProcess(&options{config: s.config, profileDir: t.TempDir()})
	code := make(chan int, 1)
	go func() { code <- serveOnce(t.Context(), p) }() // waited for below
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(10 * time.Millisecond) {
		if _, err := os.Stat(s.state); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the agent does not start")
		}
	}
	write(t, s.config, "walrus: 1")
	p.hangup(t.Context())
	select {
	case got := <-code:
		if got != 1 {
			t.Errorf("exit code %d", got)
		}
	case <-time.After(90 * time.Second):
		t.Fatal("the process goes on")
	}
}

func TestDumps(t *testing.T) {
	p := newProcess(&options{profileDir: t.TempDir()})
	path := p.profileName("goroutine")
	if err := p.dumpGoroutines(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), "TestDumps") {
		t.Errorf("dump has %d bytes, %v", len(text), err)
	}
	p.dumpHeap()
	if found, err := filepath.Glob(filepath.Join(p.options.profileDir, "fleetspeakd-heap-pprof-*")); err != nil || len(found) != 1 {
		t.Errorf("heap profiles: %v, %v", found, err)
	}
}

// The place of a dump does not depend on the environment in which the agent was started.
func TestDumpDirectory(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	path, err := newProcess(&options{}).stallName("polling")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) })
	if dir := filepath.Dir(path); dir != dumpDirectory || runtime.GOOS != "windows" && dir != "/tmp" {
		t.Errorf("goroutines go to %s", path)
	}
}
