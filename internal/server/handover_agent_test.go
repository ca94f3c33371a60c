package server_test

import (
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// randomAgent is a client that does things at random, one at a time.
type randomAgent struct {
	*testAgent
	history *history

	mu     sync.Mutex
	open   []*randomSession // guarded by mu
	newest *randomSession   // guarded by mu: gets the messages; nil when it has ended, whatever older ones are open
}

// maxOpen is how many sessions an agent has at most.
const maxOpen = 3

// randomSession is a session whose records are read as they come.
type randomSession struct {
	agent  *randomAgent
	stream *testStream
	seen   *seenSession
	index  uint64 // of the last record that was sent
	acks   chan uint64
	over   chan struct{} // closed when nothing more comes
}

func (a *randomAgent) current() *randomSession {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.newest
}

// connect begins a session, which replaces the one before.
func (a *randomAgent) connect(r *rand.Rand, tokens map[string]uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.open) == maxOpen {
		a.endOne(r)
	}
	stream, first := a.session(&fspb.ContactData{AllowedMessages: tokens})
	s := &randomSession{
		agent: a, stream: stream, seen: a.history.open(a.id), acks: make(chan uint64, 16), over: make(chan struct{}),
	}
	a.history.arrived(s.seen, first.Messages)
	a.open, a.newest = append(a.open, s), s
	go s.read()
}

// read ends when the session is over; whoever ends it waits for that.
func (s *randomSession) read() {
	defer close(s.over)
	for {
		got, err := s.stream.tryNext()
		if err != nil {
			return
		}
		s.agent.history.arrived(s.seen, got.Messages)
		if got.AckIndex != 0 {
			s.acks <- got.AckIndex
		}
	}
}

// exchange sends a record and waits for its acknowledgement: everything that was pushed before it has been read then.
func (s *randomSession) exchange(data *fspb.ContactData) {
	a := s.agent
	a.t.Helper()
	if err := s.stream.raw.SetDeadline(time.Now().Add(ioTimeout)); err != nil {
		a.t.Fatal(err)
	}
	s.index++
	s.stream.send(framed(a.wrap(data)))
	select {
	case got := <-s.acks:
		if got != s.index {
			a.t.Errorf("record %d was acknowledged, want %d", got, s.index)
		}
	case <-s.over:
		a.t.Errorf("the session of client %s ended by itself", a.id)
	}
}

// grant gives tokens back.
func (a *randomAgent) grant(r *rand.Rand) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.newest == nil {
		return
	}
	tokens := make(map[string]uint64)
	for _, service := range randomServices {
		if n := r.IntN(6); n > 0 {
			tokens[service] = uint64(n)
		}
	}
	a.newest.exchange(&fspb.ContactData{AllowedMessages: tokens})
}

// acknowledgeSome acknowledges some of what came, in any session.
func (a *randomAgent) acknowledgeSome(r *rand.Rand) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ids := slices.DeleteFunc(a.history.outstanding(a.id), func(identity.MessageID) bool { return r.IntN(3) == 0 })
	if len(a.open) > 0 {
		a.acknowledge(a.open[r.IntN(len(a.open))], ids)
	}
}

// acknowledgeAll acknowledges all that came.
func (a *randomAgent) acknowledgeAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.acknowledge(a.newest, a.history.outstanding(a.id))
}

// acknowledge sends an acknowledgement, which is committed when it returns. The caller holds mu.
func (a *randomAgent) acknowledge(s *randomSession, ids []identity.MessageID) {
	if len(ids) == 0 {
		return
	}
	s.exchange(&fspb.ContactData{Messages: []*fspb.Message{acknowledgement(a.t, ids)}})
	a.history.acknowledged(ids)
}

// leave ends a session, if there is one.
func (a *randomAgent) leave(r *rand.Rand) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.open) > 0 {
		a.endOne(r)
	}
}

// endOne ends any session, in order or not. The caller holds mu.
func (a *randomAgent) endOne(r *rand.Rand) {
	i := r.IntN(len(a.open))
	s := a.open[i]
	a.open = slices.Delete(a.open, i, i+1)
	if s == a.newest {
		a.newest = nil
	}
	a.history.leave(s.seen)
	if r.IntN(2) == 0 {
		_ = s.stream.body.Close()
		_, _ = io.WriteString(s.stream.raw, "\r\n") // the last chunk is complete
	} else {
		_ = s.stream.raw.Close()
	}
	<-s.over
	_ = s.stream.raw.Close()
}
