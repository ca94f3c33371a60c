package service_test

import (
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/farspeak/farspeak/sdk/service"
)

// pipes connects a peer with what becomes the two ends of a Daemon.
func pipes(t *testing.T) (p *peer, in, out net.Conn, hangUp func()) {
	t.Helper()
	in, toIn := net.Pipe()
	fromOut, out := net.Pipe()
	hangUp = func() {
		toIn.Close()
		fromOut.Close()
	}
	return &peer{tb: t, in: fromOut, out: toIn}, in, out, hangUp
}

// openDaemon opens a Daemon on a connection whose other side has a peer, which has greeted it.
func openDaemon(t *testing.T, cfg service.DaemonConfig) (*service.Daemon, *peer, func()) {
	t.Helper()
	p, in, out, hangUp := pipes(t)
	cfg.In, cfg.Out = in, out
	var greeting sync.WaitGroup
	greeting.Go(func() { p.greet(cfg.Version) })
	d, err := service.OpenDaemon(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	greeting.Wait()
	return d, p, hangUp
}

// inBubble runs a test whose time is its own.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}
