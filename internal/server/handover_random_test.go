package server_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	"github.com/farspeak/farspeak/internal/store/storetest"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	randomSteps   = 150
	randomActions = 6 // at most, at the same time
	randomAgents  = 3
)

var randomServices = []string{"S", "T"}

// Two daemons store messages and hand them over, or hint, or the word is lost; handovers come late and again; sessions begin,
// end, break and replace one another; tokens run out; acknowledgements come early, late or never. Whatever happens a session
// gets no message twice, nor one that was acknowledged, and those of one sender in their order; and in the end all are there.
func TestRandomHandovers(t *testing.T) {
	seed := rand.Uint64()
	defer func() {
		if t.Failed() {
			t.Logf("the seed was %d", seed)
		}
	}()
	w := newWorld(t, rand.New(rand.NewPCG(seed, 0)))
	for range randomSteps {
		w.step()
		if t.Failed() {
			return
		}
	}
	w.barrier()
	w.end()
	w.history.check(t)
	for _, outcome := range []string{"pushed", "read"} {
		if w.handed(outcome) == 0 {
			t.Errorf("no message that was handed over was %s", outcome)
		}
	}
}

// world is a server with all that acts on it.
type world struct {
	*fixture
	faults  *faultyStore
	t       *testing.T
	rand    *rand.Rand
	admins  [2]*sqlbase.Store
	agents  []*randomAgent
	history *history

	mu   sync.Mutex
	past [][]*store.Handover // guarded by mu: what was handed over by one request, or should have been
}

func newWorld(t *testing.T, r *rand.Rand) *world {
	w := &world{t: t, rand: r, history: newHistory()}
	w.fixture = start(t, withFaults(&w.faults), withSystemService(t, &w.fixture), func(c *server.Config) {
		c.RedeliveryInterval = time.Hour // what is handed out again within it is handed out twice
		c.AttemptDelay = []time.Duration{20 * time.Millisecond, time.Hour}[r.IntN(2)]
	})
	for i := range w.admins {
		w.admins[i] = w.database.Open(t, storetest.Options{})
	}
	for range randomAgents {
		agent := &randomAgent{testAgent: newTestAgent(t, w.address), history: w.history}
		agent.connect(r, nil)
		w.agents = append(w.agents, agent)
	}
	return w
}

// step does some things at the same time.
func (w *world) step() {
	w.t.Helper()
	if w.rand.IntN(15) == 0 {
		w.replay(w.agents[w.rand.IntN(len(w.agents))])
	}
	var acts sync.WaitGroup
	for range 1 + w.rand.IntN(randomActions) {
		r := rand.New(rand.NewPCG(w.rand.Uint64(), 0))
		acts.Go(func() { w.act(r) })
	}
	acts.Wait()
	if w.rand.IntN(2) == 0 {
		w.barrier()
	}
}

func (w *world) act(r *rand.Rand) {
	agent := w.agents[r.IntN(len(w.agents))]
	switch n := r.IntN(20); {
	case n < 9:
		w.insert(r)
	case n < 11:
		w.handOver(w.old(r))
	case n < 12:
		w.server.Wake([]identity.ClientID{agent.id})
	case n < 15:
		agent.acknowledgeSome(r)
	case n < 17:
		agent.grant(r)
	case n < 18:
		agent.leave(r)
	case n < 19:
		w.faults.fail(dueMessages, errTest) // until the next barrier
		agent.grant(r)
		w.insert(r)
	default:
		agent.connect(r, randomTokens(r))
	}
}

// insert stores messages by some calls, one after the other, and does with each what a daemon does, or fails to do.
func (w *world) insert(r *rand.Rand) {
	admin := r.IntN(len(w.admins))
	for range 1 + r.IntN(4) {
		handed, clients := w.insertOnce(r, admin)
		switch n := r.IntN(10); {
		case n < 6:
			w.handOver(handed)
		case n < 7:
			w.server.Wake(clients)
		}
	}
}

func (w *world) insertOnce(r *rand.Rand, admin int) (handed []*store.Handover, clients []identity.ClientID) {
	count := 1
	if r.IntN(3) == 0 {
		count += r.IntN(5)
	}
	agent := w.agents[r.IntN(len(w.agents))]
	call := w.history.begin(admin)
	var messages []*fspb.Message
	for range count {
		if r.IntN(8) == 0 {
			agent = w.agents[r.IntN(len(w.agents))]
		}
		m := toClient(agent.id, randomServices[r.IntN(len(randomServices))], identity.NewMessageID())
		messages, clients = append(messages, m), append(clients, agent.id)
		w.history.add(call, m)
	}
	outcomes, err := w.admins[admin].InsertMessages(w.t.Context(), messages)
	if err != nil {
		w.t.Error(err)
	}
	for _, outcome := range outcomes {
		if outcome.Err != nil || outcome.Duplicate {
			w.t.Errorf("inserting: %+v", outcome)
		}
		if outcome.Handover != nil {
			handed = append(handed, outcome.Handover)
		}
	}
	w.history.finish(call, handed)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.past = append(w.past, handed)
	return handed, clients
}

// replay hands over, once more and one by one, what a client acknowledged, to the next session of it.
func (w *world) replay(agent *randomAgent) {
	w.t.Helper()
	agent.connect(w.rand, nil)
	w.barrier()
	agent.acknowledgeAll()
	first := len(w.past)
	w.insert(w.rand)
	w.barrier()
	agent.acknowledgeAll()
	w.barrier()
	agent.connect(w.rand, nil)
	for _, handed := range w.past[first:] {
		waitFor(w.t, "the session to rest", func() bool { return server.Idle(w.server, agent.id) })
		w.handOver(handed)
	}
	w.barrier()
}

// old is what was stored at some time, the last few times more likely.
func (w *world) old(r *rand.Rand) []*store.Handover {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.past) == 0 {
		return nil
	}
	return w.past[len(w.past)-1-r.IntN(min(len(w.past), 1+r.IntN(50)))]
}

func (w *world) handOver(handed []*store.Handover) { w.server.HandOver(slices.Clone(handed)) }

// barrier returns when nothing is on its way to a client, and each has read what came.
func (w *world) barrier() {
	w.t.Helper()
	w.faults.fail(dueMessages, nil)
	for _, agent := range w.agents {
		if agent.current() != nil {
			waitFor(w.t, "the session to rest", func() bool { return server.Idle(w.server, agent.id) })
		}
		for _, s := range agent.open {
			s.exchange(&fspb.ContactData{})
		}
	}
	w.history.pass()
}

// end ends all sessions and the server. The next server hands out everything that was not acknowledged, once more if need be.
func (w *world) end() {
	w.t.Helper()
	for _, agent := range w.agents {
		for len(agent.open) > 0 {
			agent.leave(w.rand)
		}
	}
	w.stop()
	w.database.Exec(w.t, "UPDATE client_messages SET due_us = 1, attempts = 0") // the redelivery interval passes
	next := start(w.t, func(c *server.Config) { c.Store, c.ID = sqlStore{w.store}, "next" })
	for _, agent := range w.agents {
		agent.address = next.address
		agent.connect(w.rand, nil)
		wanted := w.history.unacknowledged(agent.id)
		waitFor(w.t, "all messages", func() bool { return w.history.received(agent.current()) >= len(wanted) })
		waitFor(w.t, "the session to rest", func() bool { return server.Idle(next.server, agent.id) })
		agent.current().exchange(&fspb.ContactData{})
		w.history.checkAll(w.t, agent.current(), wanted)
	}
}

// handed is how many messages that were handed over came to an end.
func (w *world) handed(outcome string) (count float64) {
	w.t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.Metric {
			if family.GetName() == "farspeak_handed_over_messages_total" && metric.Label[0].GetValue() == outcome {
				count += metric.GetCounter().GetValue()
			}
		}
	}
	return count
}

// randomTokens is what a session starts with: often no limit.
func randomTokens(r *rand.Rand) map[string]uint64 {
	if r.IntN(2) == 0 {
		return nil
	}
	return map[string]uint64{"S": uint64(r.IntN(6)), "T": uint64(r.IntN(6))}
}
