package integration_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/farspeak/farspeak/test/harness"
)

// Our agent keeps its session while agents of the original's kind have to come again and again, and counts as there all the
// time: its last contact goes on, although nothing is written for it.
func TestLongSession(t *testing.T) {
	t.Parallel()
	const (
		rotations = 3
		patience  = time.Minute // fs-server's heartbeats are up to 12.5 s apart
	)
	i := install(t, shape{site: func(s *harness.Site) {
		s.Components.Farspeak.Server.StreamLifetime = durationpb.New(2 * time.Second)
	}})
	admin := i.admins[0].Client(t)
	agents := startAgents(t, 1, agentConfig(t, i.servers[0].Target()))
	client := i.StartClient("fs-client", harness.ClientOptions{Servers: []string{i.servers[0].ClientAddress}})
	awaitClients(t, admin, []*harness.Client{client})
	lastContact := func() time.Time {
		listed := admin.MustListClients(t, client.ID())
		if len(listed) != 1 {
			t.Fatalf("listed %v", listed)
		}
		return listed[0].LastContactTime.AsTime()
	}
	began := lastContact()
	harness.Eventually(t, patience, "rotation of the original's sessions, and a heartbeat", func() error {
		if left, at := agents[0].Stats().Farewells, lastContact(); left < rotations || !at.After(began) {
			return fmt.Errorf("%d sessions ended, last contact %v after %v", left, at, began)
		}
		return nil
	})
	i.echo(t, admin, client, "still there")
	if n := strings.Count(client.Log(), "] session with server "); n != 1 {
		t.Errorf("%d lines about sessions, want one:\n%s", n, client.Log())
	}
	checkProtocol(t, agents)
}
