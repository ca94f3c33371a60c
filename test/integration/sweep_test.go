package integration_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/farspeak/farspeak/test/harness"
	"github.com/farspeak/farspeak/test/peer"
)

// With every notification switched off, messages arrive by sweep; with the sweep all but switched off, by notification.
func TestLostHints(t *testing.T) {
	t.Parallel()
	const sweep = 2 * time.Second
	for _, c := range []struct {
		name     string
		disabled bool
		sweep    time.Duration
		within   time.Duration
	}{
		{"no notifications", true, sweep, sweep + promptly},
		{"no sweeps", false, time.Hour, promptly},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := install(t, shape{site: func(s *harness.Site) {
				s.Components.Farspeak.Notifier.Disabled = c.disabled
				s.Components.Farspeak.Server.SweepInterval = durationpb.New(c.sweep)
			}})
			admin := i.admins[0].Client(t)
			agents := startAgents(t, 5, agentConfig(t, i.servers[0].Target()))
			var longest time.Duration
			for round := range 3 {
				longest = max(longest, i.askAll(t, admin, agents, fmt.Sprintf("round %d", round)))
			}
			t.Logf("a round trip to each of %d agents took %v at most", len(agents), longest)
			if longest > c.within {
				t.Errorf("a round trip took %v, want at most %v", longest, c.within)
			}
			checkProtocol(t, agents)
		})
	}
}

// askAll sends a text to every agent at once and waits for all answers. It returns how long the last one took.
func (i *installation) askAll(t *testing.T, admin *harness.AdminClient, agents []*peer.Agent, text string) time.Duration {
	t.Helper()
	began := time.Now()
	for _, agent := range agents {
		admin.MustInsert(t, harness.ToClient(t, agent.ID(), "echo", text))
	}
	for _, agent := range agents {
		harness.Eventually(t, promptly, "answer to "+text, func() error { return i.answered(agent.ID(), text) })
	}
	return time.Since(began)
}
