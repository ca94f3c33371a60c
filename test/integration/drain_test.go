package integration_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/testmysql"
	"github.com/farspeak/farspeak/test/harness"
	"github.com/farspeak/farspeak/test/peer"
)

// A server that is told to stop says so to its clients, which go to the other one, and nothing is lost: with messages
// under way in both directions all the while, each arrives, and none twice unless it was not acknowledged in time.
func TestDrain(t *testing.T) {
	t.Parallel()
	i := install(t, shape{servers: 2, dsn: testmysql.NewDatabase(t)})
	admin := i.admins[0].Client(t)
	const count = 40
	agents := i.startAnswering(t, count)
	onFirst := 0
	for n := range agents {
		if n%2 == 0 {
			onFirst++
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	var mu sync.Mutex
	asked := make(map[string][]byte) // text to client
	asking.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			agent := agents[n%count]
			text := fmt.Sprintf("question %d", n)
			if _, err := admin.InsertMessage(ctx, harness.ToClient(t, agent.ID(), "echo", text)); err != nil {
				if ctx.Err() == nil {
					t.Errorf("InsertMessage while a server drains: %v", err)
				}
				return
			}
			mu.Lock()
			asked[text] = agent.ID()
			mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	defer func() { cancel(); asking.Wait() }()

	began := time.Now()
	i.servers[0].Terminate()
	t.Logf("drained %d sessions in %v", onFirst, time.Since(began))
	awaitConnected(t, agents...)
	farewells := 0
	for _, agent := range agents {
		farewells += agent.Stats().Farewells
	}
	if farewells != onFirst {
		t.Errorf("%d sessions were told to leave, want %d", farewells, onFirst)
	}
	cancel()
	asking.Wait()
	for text, id := range asked {
		harness.Eventually(t, promptly, "answer to "+text, func() error { return i.answered(id, text) })
	}
	t.Logf("%d questions asked meanwhile, all answered", len(asked))
	checkProtocol(t, agents)
}

func (i *installation) startAnswering(t *testing.T, count int) []*peer.Agent {
	t.Helper()
	agents := peer.Start(t, count, func(n int) peer.Config {
		return agentConfig(t, i.servers[n%len(i.servers)].Target(), i.servers[(n+1)%len(i.servers)].Target())
	})
	awaitConnected(t, agents...)
	return agents
}
