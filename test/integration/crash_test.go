package integration_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/farspeak/farspeak/internal/testmysql"
	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
	"github.com/farspeak/farspeak/test/harness"
	"github.com/farspeak/farspeak/test/peer"
)

const (
	crashAgents = 30
	// crashMessages go each way.
	crashMessages = 2000
	// crashPace is the pause between two messages of one direction.
	crashPace = 8 * time.Millisecond
	// crashTail is how long the rest may take after everything is up again.
	crashTail = 120 * time.Second
)

// Under load each part is killed as by kill -9, and started again. Every client message that was acknowledged arrives at
// the backend, and every message whose InsertMessage returned OK arrives at its client.
func TestCrash(t *testing.T) {
	t.Parallel()
	t.Run("MariaDB", func(t *testing.T) {
		t.Parallel()
		database := startDatabase(t)
		crash(t, database.dsn(t), victim{"MariaDB", func(i *installation) { database.crash(t); i.awaitAllReady() }})
	})
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		crash(t, "")
	})
}

// victim is what is killed and brought back.
type victim struct {
	name   string
	strike func(*installation)
}

func killServer(n int) victim {
	return victim{fmt.Sprintf("fs-server %d", n), func(i *installation) {
		i.servers[n].Kill()
		i.servers[n].Restart()
		i.servers[n].AwaitReady()
	}}
}

func killAdmin(n int) victim {
	return victim{fmt.Sprintf("fs-admin %d", n), func(i *installation) {
		i.admins[n].Kill()
		i.admins[n].Restart()
		i.admins[n].AwaitReady()
	}}
}

// crash runs load through two daemons of each kind, which are killed in turn, and others between them.
func crash(t *testing.T, dsn string, others ...victim) {
	i := install(t, shape{
		servers: 2, admins: 2, dsn: dsn,
		site: func(s *harness.Site) {
			s.Components.Farspeak.Server.RedeliveryInterval = durationpb.New(3 * time.Second)
			s.Components.Farspeak.Server.SweepInterval = durationpb.New(time.Second)
		},
		server: func(_ int, config *componentspb.Config) { config.ProxyProtocol = true },
	})
	i.backend.TakeTime(100 * time.Millisecond) // so that some messages are with it when a server dies
	edge := i.StartTCPBalancer("edge", i.servers[0].Behind("send-proxy"), i.servers[1].Behind("send-proxy-v2"))
	control := harness.Dial(t, i.StartTCPBalancer("control", i.admins[0].Behind(""), i.admins[1].Behind("")).Address)
	config := agentConfig(t, peer.Target{Address: edge.Address, Roots: i.Roots()})
	config.Answer = nil
	agents := startAgents(t, crashAgents, config)

	load := startLoad(t, control, agents)
	for n := range 2 {
		for _, v := range append([]victim{killServer(n), killAdmin(n)}, others...) {
			load.awaitProgress(t, crashMessages/8)
			before := load.progress()
			v.strike(i)
			t.Logf("killed %s after %d messages each way, all up again after %d", v.name, before, load.progress())
		}
	}
	load.finish(t)
	i.judge(t, load)
}

// database is a MariaDB server of one test.
type database struct{ *testmysql.Server }

func startDatabase(t *testing.T) database {
	t.Helper()
	server, err := testmysql.Start(testmysql.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return database{server}
}

func (d database) dsn(t *testing.T) string {
	t.Helper()
	dsn, err := d.NewDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return dsn
}

func (d database) crash(t *testing.T) {
	t.Helper()
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := d.Restart(); err != nil {
		t.Fatal(err)
	}
}

func (i *installation) awaitAllReady() {
	for _, server := range i.servers {
		server.AwaitReady()
	}
	for _, admin := range i.admins {
		admin.AwaitReady()
	}
}

// judge waits until what was promised has come true, and prints the counts.
func (i *installation) judge(t *testing.T, l *load) {
	t.Helper()
	harness.Eventually(t, crashTail, "acknowledgements", func() error {
		if n := acknowledged(l.agents); n < crashMessages {
			return fmt.Errorf("%d of %d client messages are acknowledged", n, crashMessages)
		}
		return nil
	})
	harness.Eventually(t, crashTail, "client messages at the backend", func() error {
		if missing := i.missingAtBackend(l.agents); missing > 0 {
			return fmt.Errorf("%d acknowledged messages did not arrive", missing)
		}
		return nil
	})
	harness.Eventually(t, crashTail, "inserted messages at their clients", func() error {
		if missing := l.missingAtClients(); missing > 0 {
			return fmt.Errorf("%d inserted messages did not arrive", missing)
		}
		return nil
	})
	checkProtocol(t, l.agents)
	i.printCounts(t, l)
}

func acknowledged(agents []*peer.Agent) (n int) {
	for _, agent := range agents {
		n += len(agent.AcknowledgedIDs())
	}
	return n
}

func (i *installation) missingAtBackend(agents []*peer.Agent) (missing int) {
	arrived := i.backend.Deliveries()
	for _, agent := range agents {
		for _, id := range agent.AcknowledgedIDs() {
			if arrived[id] == 0 {
				missing++
			}
		}
	}
	return missing
}

func (l *load) missingAtClients() (missing int) {
	arrived := make(map[string]map[string]int)
	for _, agent := range l.agents {
		arrived[string(agent.ID())] = agent.Deliveries()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, client := range l.inserted {
		if arrived[client][id] == 0 {
			missing++
		}
	}
	return missing
}

func (i *installation) printCounts(t *testing.T, l *load) {
	t.Helper()
	var distinct, copies int
	for _, n := range i.backend.Deliveries() {
		distinct, copies = distinct+1, copies+n
	}
	t.Logf("to the backend: %d sent, %d acknowledged, %d arrived, %d duplicates",
		crashMessages, acknowledged(l.agents), distinct, copies-distinct)
	var received, duplicates, sessions int
	for _, agent := range l.agents {
		stats := agent.Stats()
		received, duplicates, sessions = received+stats.Received, duplicates+stats.Duplicates, sessions+stats.Sessions
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("to the clients: %d inserted with OK after %d refused tries, %d arrived, %d duplicates, over %d sessions",
		len(l.inserted), l.retries, received, duplicates, sessions)
	for text, n := range l.refused {
		t.Logf("refused %d times: %s", n, text)
	}
}
