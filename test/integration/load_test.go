package integration_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/farspeak/farspeak/test/harness"
	"github.com/farspeak/farspeak/test/peer"
)

// load sends numbered messages both ways.
type load struct {
	agents  []*peer.Agent
	control *harness.AdminClient
	running sync.WaitGroup

	mu       sync.Mutex
	steps    int               // messages given to agents so far
	inserted map[string]string // message ID to the client it is for, of those that returned OK
	retries  int
	refused  map[string]int // by error text
}

func startLoad(t *testing.T, control *harness.AdminClient, agents []*peer.Agent) *load {
	l := &load{agents: agents, control: control, inserted: make(map[string]string), refused: make(map[string]int)}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() { cancel(); l.running.Wait() })
	l.running.Go(func() { l.sendFromAgents(ctx, t) })
	// As many callers as a backend has: one that waits for a database holds up the others no more than there.
	numbers := make(chan int)
	l.running.Go(func() {
		defer close(numbers)
		paced(ctx, func(n int) { numbers <- n })
	})
	for range 8 {
		l.running.Go(func() {
			for n := range numbers {
				l.insert(ctx, t, n)
			}
		})
	}
	return l
}

// paced calls step for each message at an even pace.
func paced(ctx context.Context, step func(n int)) {
	tick := time.NewTicker(crashPace)
	defer tick.Stop()
	for n := range crashMessages {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			step(n)
		}
	}
}

func (l *load) sendFromAgents(ctx context.Context, t *testing.T) {
	paced(ctx, func(n int) {
		l.agents[n%len(l.agents)].Send(harness.ToBackend(t, fmt.Sprintf("up %d", n)))
		l.mu.Lock()
		l.steps++
		l.mu.Unlock()
	})
}

// insert does as the Python connector does: one message ID for all tries, until one returns OK.
func (l *load) insert(ctx context.Context, t *testing.T, n int) {
	agent := l.agents[n%len(l.agents)]
	m := harness.ToClient(t, agent.ID(), "echo", fmt.Sprintf("down %d", n))
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := l.control.InsertMessage(call, m)
		cancel()
		l.mu.Lock()
		if err == nil {
			l.inserted[string(m.MessageId)] = string(agent.ID())
			l.mu.Unlock()
			return
		}
		l.retries++
		l.refused[err.Error()]++
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(100*time.Millisecond + rand.N(200*time.Millisecond)):
		}
	}
}

// progress is how many messages went on their way in the direction that is behind.
func (l *load) progress() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return min(l.steps, len(l.inserted))
}

func (l *load) awaitProgress(t *testing.T, more int) {
	t.Helper()
	target := min(l.progress()+more, crashMessages)
	harness.Eventually(t, crashTail, "load", func() error {
		if now := l.progress(); now < target {
			return fmt.Errorf("%d of %d messages", now, target)
		}
		return nil
	})
}

// finish waits until all messages were given over.
func (l *load) finish(t *testing.T) {
	t.Helper()
	l.awaitProgress(t, crashMessages)
	l.running.Wait()
}
