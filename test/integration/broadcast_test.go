package integration_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/farspeak/farspeak/internal/testmysql"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
	"github.com/farspeak/farspeak/test/harness"
	"github.com/farspeak/farspeak/test/peer"
)

const (
	labelled     = 200
	unlabelled   = 20
	broadcastMax = 150
)

// A broadcast for a label, with a limit of 150, to 200 connected clients on two servers: at once, exactly 150 get it,
// each once, and no client without the label. (G-09, G-34, G-60)
func TestBroadcastLimit(t *testing.T) {
	t.Parallel()
	i := install(t, shape{
		servers: 2, dsn: testmysql.NewDatabase(t),
		site: func(s *harness.Site) {
			s.Services.BroadcastPollTime = durationpb.New(time.Hour) // nothing comes by itself
			s.Components.Farspeak.Server.RedeliveryInterval = durationpb.New(time.Hour)
		},
	})
	admin := i.admins[0].Client(t)
	meant := i.startOnAll(t, labelled, "meant")
	others := i.startOnAll(t, unlabelled, "other")

	began := time.Now()
	broadcast(t, admin, broadcastMax, "limited", "meant")
	harness.Eventually(t, 2*promptly, "broadcast", func() error {
		if n := received(meant); n < broadcastMax {
			return fmt.Errorf("%d clients have it", n)
		}
		return nil
	})
	t.Logf("%d of %d connected clients had the broadcast after %v", broadcastMax, labelled, time.Since(began))
	exactly := func() error {
		if n, repeats := received(meant), duplicates(meant); n != broadcastMax || repeats != 0 {
			return fmt.Errorf("%d clients have it, and %d came twice", n, repeats)
		}
		if n := received(others); n != 0 {
			return fmt.Errorf("%d clients without the label have it", n)
		}
		return nil
	}
	harness.Stays(t, 2*time.Second, "limit", exactly)

	// Those who come later find it used up.
	late := i.startOnAll(t, 10, "meant")
	harness.Stays(t, 2*time.Second, "limit", func() error {
		if n := received(late); n != 0 {
			return fmt.Errorf("%d clients beyond the limit have it", n)
		}
		return exactly()
	})
	for _, agents := range [][]*peer.Agent{meant, others, late} {
		checkProtocol(t, agents)
	}
}

// An unlimited broadcast reaches everyone with the label: who is connected, who comes, who polls; once, also over a
// reconnect.
func TestBroadcastReachesAll(t *testing.T) {
	t.Parallel()
	i := install(t, shape{servers: 2, dsn: testmysql.NewDatabase(t), site: func(s *harness.Site) {
		s.Services.BroadcastPollTime = durationpb.New(time.Second)
	}})
	admin := i.admins[0].Client(t)
	connected := i.startOnAll(t, 40, "meant")
	broadcast(t, admin, math.MaxInt64, "all", "meant")
	awaitReceived(t, connected)
	late := i.startOnAll(t, 10, "meant")
	polling := agentConfig(t, i.servers[0].Target())
	polling.Labels, polling.PollInterval = []string{"meant"}, shortPoll
	late = append(late, startAgents(t, 4, polling)...)
	awaitReceived(t, late)

	everyone := append(connected, late...)
	i.servers[0].Terminate() // its clients reconnect elsewhere, or there after it came back
	i.servers[0].Restart()
	i.servers[0].AwaitReady()
	awaitConnected(t, everyone...)
	harness.Stays(t, 3*time.Second, "once each", func() error {
		if n, repeats := received(everyone), duplicates(everyone); n != len(everyone) || repeats != 0 {
			return fmt.Errorf("%d clients have it, and %d came twice", n, repeats)
		}
		return nil
	})
	checkProtocol(t, everyone)
}

// A limit holds while clients come to two servers, one of which dies.
func TestBroadcastLimitInTheRush(t *testing.T) {
	t.Parallel()
	i := install(t, shape{servers: 2, dsn: testmysql.NewDatabase(t), site: func(s *harness.Site) {
		s.Services.BroadcastPollTime = durationpb.New(time.Second)
		s.Components.Farspeak.Server.RedeliveryInterval = durationpb.New(2 * time.Second)
		s.Components.Farspeak.Server.SweepInterval = durationpb.New(time.Second)
	}})
	admin := i.admins[0].Client(t)
	agents := peer.Start(t, labelled, i.spread(t, "meant"))
	broadcast(t, admin, broadcastMax, "limited", "meant")
	i.servers[0].Kill()
	i.servers[0].Restart()
	i.servers[0].AwaitReady()
	awaitConnected(t, agents...)
	harness.Eventually(t, 2*promptly, "broadcast", func() error {
		if n := received(agents); n < broadcastMax {
			return fmt.Errorf("%d clients have it", n)
		}
		return nil
	})
	harness.Stays(t, 4*time.Second, "limit", func() error {
		if n := received(agents); n != broadcastMax {
			return fmt.Errorf("%d clients have it", n)
		}
		return nil
	})
	checkProtocol(t, agents)
}

// startOnAll starts agents with one label, spread over the servers; each tries another server when its own is away.
func (i *installation) startOnAll(t *testing.T, count int, label string) []*peer.Agent {
	t.Helper()
	agents := peer.Start(t, count, i.spread(t, label))
	awaitConnected(t, agents...)
	return agents
}

func (i *installation) spread(t *testing.T, label string) func(int) peer.Config {
	return func(n int) peer.Config {
		var targets []peer.Target
		for offset := range i.servers {
			targets = append(targets, i.servers[(n+offset)%len(i.servers)].Target())
		}
		config := agentConfig(t, targets...)
		config.Labels, config.Answer = []string{label}, nil
		return config
	}
}

func broadcast(t *testing.T, admin *harness.AdminClient, limit uint64, text, label string) {
	t.Helper()
	_, err := admin.CreateBroadcast(t.Context(), &serverpb.CreateBroadcastRequest{
		Limit: limit,
		Broadcast: &serverpb.Broadcast{
			Source:         &fspb.Address{ServiceName: "echo"},
			MessageType:    "Text",
			RequiredLabels: []*fspb.Label{{ServiceName: "client", Label: label}},
			Data:           harness.Text(t, text),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// received counts the agents that got anything.
func received(agents []*peer.Agent) (n int) {
	for _, agent := range agents {
		if agent.Stats().Received > 0 {
			n++
		}
	}
	return n
}

func duplicates(agents []*peer.Agent) (n int) {
	for _, agent := range agents {
		stats := agent.Stats()
		n += stats.Duplicates + max(0, stats.Received-1)
	}
	return n
}

func awaitReceived(t *testing.T, agents []*peer.Agent) {
	t.Helper()
	harness.Eventually(t, 2*promptly, "broadcast", func() error {
		if n := received(agents); n < len(agents) {
			return fmt.Errorf("%d of %d clients have it", n, len(agents))
		}
		return nil
	})
}
