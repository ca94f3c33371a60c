package integration_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/farspeak/farspeak/test/harness"
	"github.com/farspeak/farspeak/test/peer"
)

// watch is a well-behaved client that does round trips all the while, and looks at the server's memory.
type watch struct {
	agent *peer.Agent
	i     *installation
	admin *harness.AdminClient

	mu      sync.Mutex
	trips   int
	longest time.Duration
	peak    int64
	err     error
}

func startWatch(t *testing.T, i *installation) *watch {
	t.Helper()
	w := &watch{agent: startAgents(t, 1, agentConfig(t, i.servers[0].Target()))[0], i: i, admin: i.admins[0].Client(t)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	t.Cleanup(func() { cancel(); <-ended })
	go func() {
		defer close(ended)
		for n := 0; ctx.Err() == nil; n++ {
			w.trip(ctx, t, fmt.Sprintf("watch %d", n))
		}
	}()
	return w
}

func (w *watch) trip(ctx context.Context, t *testing.T, text string) {
	began := time.Now()
	_, err := w.admin.InsertMessage(ctx, harness.ToClient(t, w.agent.ID(), "echo", text))
	for err == nil && ctx.Err() == nil && w.i.answered(w.agent.ID(), text) != nil {
		if time.Since(began) > promptly {
			err = fmt.Errorf("no answer to %q after %v", text, promptly)
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Millisecond):
		}
	}
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trips++
	w.longest = max(w.longest, time.Since(began))
	w.peak = max(w.peak, w.i.servers[0].ResidentBytes())
	if w.err == nil {
		w.err = err
	}
}

// check waits for more round trips, so that they are some of this moment, and fails the test for one that failed.
func (w *watch) check(t *testing.T) {
	t.Helper()
	_, before := w.figures()
	harness.Eventually(t, 2*promptly, "round trips of another client", func() error {
		if _, now := w.figures(); now < before+3 {
			return fmt.Errorf("%d round trips", now-before)
		}
		return nil
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		t.Errorf("another client was disturbed: %v", w.err)
		w.err = nil
	}
	for _, violation := range w.agent.Violations() {
		t.Error(violation)
	}
}

func (w *watch) figures() (longest time.Duration, trips int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.longest, w.trips
}

func (w *watch) memory() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.peak
}
