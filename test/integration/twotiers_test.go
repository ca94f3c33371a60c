package integration_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/farspeak/farspeak/internal/testmysql"
	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
	"github.com/farspeak/farspeak/test/harness"
	"github.com/farspeak/farspeak/test/peer"
)

// Two fs-server behind a balancer that sends PROXY headers of both versions, two fs-admin behind balancers for
// connections and for requests, one MariaDB: a message given to any fs-admin reaches a client on any fs-server, and its
// answer reaches the backend.
func TestTwoTiers(t *testing.T) {
	t.Parallel()
	i := install(t, shape{
		servers: 2, admins: 2, dsn: testmysql.NewDatabase(t),
		server: func(_ int, config *componentspb.Config) { config.ProxyProtocol = true },
	})
	edge := i.StartTCPBalancer("edge", i.servers[0].Behind("send-proxy"), i.servers[1].Behind("send-proxy-v2"))
	target := peer.Target{Address: edge.Address, Roots: i.Roots()}
	control := map[string]*harness.AdminClient{
		"first fs-admin":      i.admins[0].Client(t),
		"second fs-admin":     i.admins[1].Client(t),
		"connection balancer": harness.Dial(t, i.StartTCPBalancer("control", i.admins[0].Behind(""), i.admins[1].Behind("")).Address),
		"request balancer":    harness.Dial(t, i.StartH2Balancer("control-h2", i.admins[0].Behind(""), i.admins[1].Behind("")).Address),
	}

	var clients []*harness.Client
	for n, options := range []harness.ClientOptions{{}, {PreferHTTP2: true}, {Deflate: true}, {Polling: true}, {Polling: true, Deflate: true}} {
		options.Servers = []string{edge.Address}
		clients = append(clients, i.StartClient(fmt.Sprintf("fs-client-%d", n), options))
	}
	agents := startAgents(t, 10, agentConfig(t, target))
	deflating := agentConfig(t, target)
	deflating.Deflate = true
	agents = append(agents, startAgents(t, 2, deflating)...)
	polling := agentConfig(t, target)
	polling.PollInterval = shortPoll
	agents = append(agents, startAgents(t, 2, polling)...)

	admin := control["first fs-admin"]
	awaitClients(t, admin, clients)
	checkSpread(t, admin, agents)
	for name, through := range control {
		for n, agent := range agents {
			i.roundTrip(t, through, agent, fmt.Sprintf("agent %d through the %s", n, name))
		}
		for n, client := range clients {
			i.echo(t, through, client, fmt.Sprintf("client %d through the %s", n, name))
		}
	}
	checkProtocol(t, agents)
	i.checkObservedAddress(t, admin, target)
}

// awaitClients waits until real clients have had their first contact; a message for an unknown client is refused.
func awaitClients(t *testing.T, admin *harness.AdminClient, clients []*harness.Client) {
	t.Helper()
	for _, client := range clients {
		harness.Eventually(t, connectTime, client.Name+" known", func() error {
			if len(admin.MustListClients(t, client.ID())) == 0 {
				return errors.New("no such client")
			}
			return nil
		})
	}
}

// echo sends a text to a real client and waits until the backend has the answer of its service.
func (i *installation) echo(t *testing.T, admin *harness.AdminClient, client *harness.Client, text string) {
	t.Helper()
	admin.MustInsert(t, client.EchoRequest(text))
	harness.Eventually(t, promptly, "answer to "+text, func() error {
		if i.backend.EchoReply(client.ID(), text) == nil {
			return errors.New("the backend has no answer")
		}
		return nil
	})
}

// checkSpread makes sure that the test is one: clients stream to both servers.
func checkSpread(t *testing.T, admin *harness.AdminClient, agents []*peer.Agent) {
	t.Helper()
	ids := make([][]byte, len(agents))
	for n, agent := range agents {
		ids[n] = agent.ID()
	}
	holders := make(map[string]int)
	for _, client := range admin.MustListClients(t, ids...) {
		holders[client.LastContactStreamingTo]++
	}
	delete(holders, "") // those that poll
	if len(holders) != 2 {
		t.Errorf("agents stream to %v, want two servers", holders)
	}
}

// checkObservedAddress opens sessions until both servers had one: the address of a client is its own, not the balancer's.
func (i *installation) checkObservedAddress(t *testing.T, admin *harness.AdminClient, target peer.Target) {
	t.Helper()
	for range 4 {
		key, err := peer.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		session, _, err := target.Open(t.Context(), key, false, emptyContact(), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(session.Close)
		listed := admin.MustListClients(t, key.ID())
		if len(listed) != 1 || listed[0].LastContactAddress != session.LocalAddress() {
			t.Errorf("client at %s is listed as %v", session.LocalAddress(), listed)
		}
	}
}
