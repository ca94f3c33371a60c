package agent

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// Those who connect and say or read nothing hold up others for no longer than the timeout; a dead socket is replaced.
func TestStatusServerIsNotHeldUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := listenStatus(path, func() Status { return Status{Labels: []string{strings.Repeat("a", 1<<20)}} })
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // waited for at the end
		defer close(done)
		s.run(ctx)
	}()
	silent, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if got, err := AskStatus(t.Context(), path); err != nil || len(got.Labels[0]) != 1<<20 {
		t.Errorf("status: %v", err)
	}
	stop()
	<-done
	if _, err := AskStatus(t.Context(), path); err == nil {
		t.Error("a server that ended answers")
	}
}
