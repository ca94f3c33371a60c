package integration_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/farspeak/farspeak/internal/testmysql"
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
	// They resumed the TLS sessions that they had with one server on the other one, by light handshakes.
	if metrics := i.servers[0].Metrics(t); !strings.Contains(metrics, `farspeak_session_handshakes_total{key_exchange="CurveP256",resumed="true"}`) {
		t.Errorf("no client came by a light handshake; metrics:\n%s", metrics)
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

// A client that nobody knows, and that comes to two servers several times at the same moment, is let in everywhere. (G-37)
func TestRegistrationRace(t *testing.T) {
	t.Parallel()
	const clients, copies = 40, 4
	for name, dsn := range map[string]func(*testing.T) string{
		"MariaDB": func(t *testing.T) string { return testmysql.NewDatabase(t) },
		"SQLite":  func(*testing.T) string { return "" },
	} {
		t.Run(name, func(t *testing.T) {
			i := install(t, shape{servers: 2, dsn: dsn(t)})
			var opening sync.WaitGroup
			begin := make(chan struct{})
			for range clients {
				key := newKey(t)
				for n := range copies {
					opening.Go(func() {
						<-begin
						session, _, err := i.servers[n%2].Target().Open(t.Context(), key, false, emptyContact(), []string{"linux"})
						if err != nil {
							t.Errorf("client %s, copy %d: %v", key, n, err)
							return
						}
						session.Close()
					})
				}
			}
			close(begin)
			opening.Wait()
			listed := i.admins[0].Client(t).MustListClients(t)
			if len(listed) != clients {
				t.Errorf("%d clients are listed, want %d", len(listed), clients)
			}
			for _, client := range listed {
				if len(client.Labels) != 1 || client.Labels[0].Label != "linux" {
					t.Errorf("client %x has the labels %v", client.ClientId, client.Labels)
				}
			}
		})
	}
}
