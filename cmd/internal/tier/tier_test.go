package tier_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/farspeak/farspeak/cmd/internal/tier"
	"github.com/farspeak/farspeak/internal/config"
	"github.com/farspeak/farspeak/test/harness"
)

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// newTier opens a Tier on a new database. ready asks it whether it is.
func newTier(t *testing.T) (opened *tier.Tier, ready func() (string, error)) {
	t.Helper()
	address := harness.FreeAddress(t)
	opened, err := tier.Open(t.Context(), tier.Config{
		Store:  config.Store{Dialect: config.SQLite, Path: filepath.Join(t.TempDir(), "farspeak.sqlite")},
		Health: tier.Probe{Field: "health", Address: address},
	})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	return opened, func() (string, error) {
		answer, err := client.Get("http://" + address + "/readyz")
		if err != nil {
			return "", err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		return strings.TrimSpace(string(body)), err
	}
}

// expectReady waits until a daemon says of itself what is wanted.
func expectReady(t *testing.T, ready func() (string, error), want string) {
	t.Helper()
	harness.Eventually(t, patience, "readiness", func() error {
		if got, err := ready(); err != nil || got != want {
			return fmt.Errorf("got %q, %v; want %q", got, err, want)
		}
		return nil
	})
}

// TestLife: probes answer from Open to Close, and jobs run until what they are for has ended.
func TestLife(t *testing.T) {
	opened, ready := newTier(t)
	expectReady(t, ready, "starting")
	opened.Opened()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	drained, jobEnded, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() { // waited for below
		ended <- opened.Run(ctx, tier.Work{
			Serve: func(ctx context.Context) error {
				opened.Serving("test")
				<-ctx.Done()
				<-drained
				return nil
			},
			Jobs: []tier.Job{{Name: "job", Run: func(ctx context.Context) error {
				<-ctx.Done()
				close(jobEnded)
				return ctx.Err()
			}}},
			Ending: "draining",
		})
	}()
	expectReady(t, ready, "ready")
	stop()
	expectReady(t, ready, "draining")
	select {
	case <-jobEnded:
		t.Error("a job ended before what it is for")
	default:
	}
	close(drained)
	if err := <-ended; err != nil {
		t.Errorf("Run after a stop: %v", err)
	}
	<-jobEnded
	expectReady(t, ready, "draining")
	if err := opened.Close(); err != nil {
		t.Error(err)
	}
	if body, err := ready(); err == nil {
		t.Errorf("after Close a probe got %q", body)
	}
}

// TestFailuresEndTheDaemon: whatever part fails, Run ends all and tells which.
func TestFailuresEndTheDaemon(t *testing.T) {
	broken := errors.New("broken")
	fail := func(context.Context) error { return broken }
	last := func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	}
	for name, c := range map[string]struct {
		work tier.Work
		want string
	}{
		"serving": {tier.Work{Serve: fail, Jobs: []tier.Job{{Name: "job", Run: last}}}, "broken"},
		"a job":   {tier.Work{Serve: last, Jobs: []tier.Job{{Name: "job", Run: fail}}}, "job: broken"},
	} {
		t.Run(name, func(t *testing.T) {
			opened, _ := newTier(t)
			if err := opened.Run(t.Context(), c.work); !errors.Is(err, broken) || err.Error() != c.want {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if err := opened.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOpenFails: the error names the field, and nothing is left open.
func TestOpenFails(t *testing.T) {
	address := harness.FreeAddress(t)
	probe := tier.Probe{Field: "health_check_config.listen_address", Address: address}
	_, err := tier.Open(t.Context(), tier.Config{
		Store: config.Store{Dialect: config.SQLite, Path: filepath.Join(t.TempDir(), "missing", "farspeak.sqlite")}, Health: probe,
	})
	if err == nil {
		t.Fatal("a database in no folder was opened")
	}
	opened, err := tier.Open(t.Context(), tier.Config{
		Store: config.Store{Dialect: config.SQLite, Path: filepath.Join(t.TempDir(), "farspeak.sqlite")}, Health: probe,
	})
	if err != nil {
		t.Fatalf("after a failure: %v", err)
	}
	defer opened.Close()
	_, err = tier.Open(t.Context(), tier.Config{Health: probe})
	if err == nil || !strings.Contains(err.Error(), probe.Field) {
		t.Errorf("error %v of a port in use, want the field", err)
	}
}
