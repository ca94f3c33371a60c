package integration_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
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
	crashPace = 12 * time.Millisecond
	// crashTail is how long the rest may take after everything is up again.
	crashTail = 120 * time.Second
)

// Under load each part is killed as by kill -9, and started again. Every client message that was acknowledged arrives at
// the backend, and every message whose InsertMessage returned OK arrives at its client.
func TestCrash(t *testing.T) {
	database := startDatabase(t)
	i := install(t, shape{
		servers: 2, admins: 2, dsn: database.dsn(t),
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
	for _, victim := range []struct {
		name   string
		strike func()
	}{
		{"fs-server 0", func() { i.servers[0].Kill(); i.servers[0].Restart(); i.servers[0].AwaitReady() }},
		{"fs-admin 0", func() { i.admins[0].Kill(); i.admins[0].Restart(); i.admins[0].AwaitReady() }},
		{"MariaDB", func() { database.crash(t); i.awaitAllReady() }},
		{"fs-server 1", func() { i.servers[1].Kill(); i.servers[1].Restart(); i.servers[1].AwaitReady() }},
		{"fs-admin 1", func() { i.admins[1].Kill(); i.admins[1].Restart(); i.admins[1].AwaitReady() }},
		{"MariaDB again", func() { database.crash(t); i.awaitAllReady() }},
	} {
		load.awaitProgress(t, crashMessages/8)
		before := load.progress()
		victim.strike()
		t.Logf("killed %s after %d messages each way, all up again after %d", victim.name, before, load.progress())
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

// load sends numbered messages both ways.
type load struct {
	agents  []*peer.Agent
	control *harness.AdminClient
	running sync.WaitGroup

	mu       sync.Mutex
	steps    int               // messages given to agents so far
	inserted map[string]string // message ID to the client it is for, of those that returned OK
	retries  int
	refused  map[string]int // by error text
}

func startLoad(t *testing.T, control *harness.AdminClient, agents []*peer.Agent) *load {
	l := &load{agents: agents, control: control, inserted: make(map[string]string), refused: make(map[string]int)}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() { cancel(); l.running.Wait() })
	l.running.Go(func() { l.sendFromAgents(ctx, t) })
	// As many callers as a backend has: one that waits for a database holds up the others no more than there.
	numbers := make(chan int)
	l.running.Go(func() {
		defer close(numbers)
		paced(ctx, func(n int) { numbers <- n })
	})
	for range 8 {
		l.running.Go(func() {
			for n := range numbers {
				l.insert(ctx, t, n)
			}
		})
	}
	return l
}

// paced calls step for each message at an even pace.
func paced(ctx context.Context, step func(n int)) {
	tick := time.NewTicker(crashPace)
	defer tick.Stop()
	for n := range crashMessages {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			step(n)
		}
	}
}

func (l *load) sendFromAgents(ctx context.Context, t *testing.T) {
	paced(ctx, func(n int) {
		l.agents[n%len(l.agents)].Send(harness.ToBackend(t, fmt.Sprintf("up %d", n)))
		l.mu.Lock()
		l.steps++
		l.mu.Unlock()
	})
}

// insert does as the Python connector does: one message ID for all tries, until one returns OK.
func (l *load) insert(ctx context.Context, t *testing.T, n int) {
	agent := l.agents[n%len(l.agents)]
	m := harness.ToClient(t, agent.ID(), "echo", fmt.Sprintf("down %d", n))
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := l.control.InsertMessage(call, m)
		cancel()
		l.mu.Lock()
		if err == nil {
			l.inserted[string(m.MessageId)] = string(agent.ID())
			l.mu.Unlock()
			return
		}
		l.retries++
		l.refused[err.Error()]++
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(100*time.Millisecond + rand.N(200*time.Millisecond)):
		}
	}
}

// progress is how many messages went on their way in the direction that is behind.
func (l *load) progress() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return min(l.steps, len(l.inserted))
}

func (l *load) awaitProgress(t *testing.T, more int) {
	t.Helper()
	target := min(l.progress()+more, crashMessages)
	harness.Eventually(t, crashTail, "load", func() error {
		if now := l.progress(); now < target {
			return fmt.Errorf("%d of %d messages", now, target)
		}
		return nil
	})
}

// finish waits until all messages were given over.
func (l *load) finish(t *testing.T) {
	t.Helper()
	l.awaitProgress(t, crashMessages)
	l.running.Wait()
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
