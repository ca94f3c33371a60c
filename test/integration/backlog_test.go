package integration_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/testmysql"
	"github.com/farspeak/farspeak/test/harness"
	"github.com/farspeak/farspeak/test/peer"
)

// While the backend is away, clients go on: their messages are taken and kept. When it is back, each arrives, and with
// two servers working on the same backlog none arrives twice. (G-20, G-36)
func TestBackendAway(t *testing.T) {
	t.Parallel()
	for name, dsn := range map[string]func(*testing.T) string{
		"MariaDB": func(t *testing.T) string { return testmysql.NewDatabase(t) },
		"SQLite":  func(*testing.T) string { return "" },
	} {
		t.Run(name, func(t *testing.T) {
			const count, perAgent = 10, 50
			i := install(t, shape{servers: 2, dsn: dsn(t)})
			agents := i.startAnswering(t, count)
			i.backend.Stop()
			began := time.Now()
			for n := range perAgent {
				for _, agent := range agents {
					agent.Send(harness.ToBackend(t, fmt.Sprint(n)))
				}
			}
			i.awaitAcknowledged(t, agents, count*perAgent)
			t.Logf("%d messages were taken in %v without the backend", count*perAgent, time.Since(began))

			began = time.Now()
			i.backend.Resume()
			i.awaitArrival(t, agents)
			t.Logf("%d messages were delivered within %v of its return", count*perAgent, time.Since(began))
			i.checkOnce(t)
			checkProtocol(t, agents)
		})
	}
}

// What a service has no room for at once is tried again; each message is completed exactly once.
func TestServiceOverload(t *testing.T) {
	t.Parallel()
	const count, perAgent = 10, 20
	i := install(t, shape{servers: 2, site: func(s *harness.Site) {
		for _, service := range s.Services.Services {
			service.MaxParallelism = 5
		}
	}})
	agents := i.startAnswering(t, count)
	for range perAgent {
		for _, agent := range agents {
			agent.Send(harness.ToBackend(t, strings.Repeat("x", 1000)))
		}
	}
	i.awaitAcknowledged(t, agents, count*perAgent)
	i.awaitArrival(t, agents)
	i.checkOnce(t)
}

func (i *installation) awaitAcknowledged(t *testing.T, agents []*peer.Agent, count int) {
	t.Helper()
	harness.Eventually(t, 4*promptly, "acknowledgements", func() error {
		if n := acknowledged(agents); n < count {
			return fmt.Errorf("%d of %d", n, count)
		}
		return nil
	})
}

func (i *installation) awaitArrival(t *testing.T, agents []*peer.Agent) {
	t.Helper()
	harness.Eventually(t, 4*promptly, "acknowledged messages at the backend", func() error {
		if missing := i.missingAtBackend(agents); missing > 0 {
			return fmt.Errorf("%d are missing", missing)
		}
		return nil
	})
}

// checkOnce fails the test for messages that the backend took more than once.
func (i *installation) checkOnce(t *testing.T) {
	t.Helper()
	repeated := 0
	for _, n := range i.backend.Deliveries() {
		if n > 1 {
			repeated++
		}
	}
	if repeated > 0 {
		t.Errorf("%d messages arrived more than once", repeated)
	}
}
