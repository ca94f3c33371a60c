package integration_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/farspeak/farspeak/test/harness"
)

// Two fs-server and two fs-admin of one machine write to one SQLite file at the same time, and none gets in another's way.
func TestSharedSQLiteFile(t *testing.T) {
	t.Parallel()
	i := install(t, shape{servers: 2, admins: 2})
	agents := i.startAnswering(t, 20)
	const perAgent = 10
	var asking sync.WaitGroup
	for n, admin := range i.admins {
		client := admin.Client(t)
		asking.Go(func() {
			for round := range perAgent {
				for m, agent := range agents {
					text := fmt.Sprintf("round %d of agent %d through admin %d", round, m, n)
					if _, err := client.InsertMessage(t.Context(), harness.ToClient(t, agent.ID(), "echo", text)); err != nil {
						t.Errorf("InsertMessage: %v", err)
						return
					}
				}
			}
		})
	}
	asking.Wait()
	if t.Failed() {
		return
	}
	for n := range i.admins {
		for round := range perAgent {
			for m, agent := range agents {
				text := fmt.Sprintf("round %d of agent %d through admin %d", round, m, n)
				harness.Eventually(t, promptly, "answer to "+text, func() error { return i.answered(agent.ID(), text) })
			}
		}
	}
	checkProtocol(t, agents)
}

// One components file serves all daemons of a machine.
func TestOneComponentsFile(t *testing.T) {
	t.Parallel()
	site := harness.NewSite(t, programs)
	i := &installation{Site: site, backend: harness.StartBackend(t)}
	i.AddBackend("sink", i.backend)
	server, admin := site.StartMachine()
	i.servers, i.admins = []*harness.Server{server}, []*harness.Admin{admin}
	agent := startAgents(t, 1, agentConfig(t, server.Target()))[0]
	i.roundTrip(t, admin.Client(t), agent, "hello")
	for _, daemon := range []harness.Daemon{server.Daemon, admin.Daemon} {
		if daemon.Metrics(t) == "" {
			t.Errorf("%s has no metrics", daemon.Name)
		}
		daemon.Terminate()
	}
}
