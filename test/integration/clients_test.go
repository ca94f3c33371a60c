package integration_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/farspeak/farspeak/test/harness"
)

// Real clients of two servers that were killed and came back are served again.
func TestRealClientsReconnect(t *testing.T) {
	t.Parallel()
	i := install(t, shape{servers: 2, site: func(s *harness.Site) {
		s.Components.Farspeak.Server.RedeliveryInterval = durationpb.New(3 * time.Second)
		s.Components.Farspeak.Server.SweepInterval = durationpb.New(time.Second)
	}})
	admin := i.admins[0].Client(t)
	var clients []*harness.Client
	for n := range 4 {
		clients = append(clients, i.StartClient(fmt.Sprintf("fs-client-%d", n), harness.ClientOptions{
			Servers: []string{i.servers[n%2].ClientAddress, i.servers[(n+1)%2].ClientAddress},
		}))
	}
	awaitClients(t, admin, clients)
	for round, server := range i.servers {
		server.Kill()
		for n, client := range clients {
			i.echo(t, admin, client, fmt.Sprintf("round %d to %d", round, n))
		}
		server.Restart()
		server.AwaitReady()
	}
	before, err := os.ReadFile(clients[0].StatePath)
	if err != nil {
		t.Fatal(err)
	}
	id := clients[0].ID()
	clients[0].Kill()
	clients[0].Restart()
	i.echo(t, admin, clients[0], "after its own death")
	if string(clients[0].ID()) != string(id) {
		t.Errorf("killed and started again the client has another identity; its state was %x", before)
	}
}
