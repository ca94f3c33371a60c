package server

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

// What sessions handed out and have in their ledgers: recorded when it gets old, forgotten when it is acknowledged, given
// back when the session ends.

const (
	// maxUnrecorded bounds the messages in all ledgers of a server; past it attempts are recorded at once.
	maxUnrecorded = 1 << 16
	// recordChunk is about how many attempts are recorded at once: one statement's worth.
	recordChunk = 450
)

// handouts knows the sessions that have something in their ledgers.
type handouts struct {
	messages atomic.Int64  // in all ledgers
	arrived  chan struct{} // has room for one: there are sessions
	mu       sync.Mutex
	sessions map[*session]struct{} // guarded by mu
}

func newHandouts() *handouts {
	return &handouts{sessions: make(map[*session]struct{}), arrived: make(chan struct{}, 1)}
}

// reserve takes room for messages, or none.
func (h *handouts) reserve(count int) bool {
	if h.messages.Add(int64(count)) > maxUnrecorded {
		h.release(count)
		return false
	}
	return true
}

func (h *handouts) release(count int) { h.messages.Add(-int64(count)) }

// watch remembers a session that has something in its ledger.
func (h *handouts) watch(n *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sessions[n] = struct{}{}
	poke(h.arrived)
}

// take empties the set of sessions.
func (h *handouts) take() map[*session]struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	taken := h.sessions
	h.sessions = make(map[*session]struct{})
	return taken
}

// recordForever records the attempts of what is not acknowledged soon. It has a timer only while something waits for that.
func (s *Server) recordForever(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.handouts.arrived:
		}
		if !pause(ctx, s.cfg.AttemptDelay) {
			return
		}
		old := time.Now().Add(-s.cfg.AttemptDelay / 2)
		if err := s.guard(func() error { return s.recordOld(old) }); err != nil {
			s.metrics.complain("recording what clients got: %v", err)
		}
	}
}

// recordOld records the attempts of what was written before a time. When that fails, the rest waits for the next round.
func (s *Server) recordOld(before time.Time) error {
	sessions := s.handouts.take()
	defer func() {
		for n := range sessions {
			n.watchLedger()
		}
	}()
	var refs []store.MessageRef
	var group []*session
	for n := range sessions {
		refs = append(refs, n.startRecording(before)...)
		if group = append(group, n); len(refs) < recordChunk {
			continue
		}
		if err := s.recordGroup(group, refs); err != nil {
			return err
		}
		refs, group = nil, nil
	}
	return s.recordGroup(group, refs)
}

// recordGroup records attempts of some sessions.
func (s *Server) recordGroup(group []*session, refs []store.MessageRef) error {
	err := s.handedOut(handout{attempts: refs})
	for _, n := range group {
		n.endRecording(err == nil)
	}
	return err
}

func (n *session) startRecording(before time.Time) []store.MessageRef {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.refs(n.ledger.record(before))
}

func (n *session) endRecording(done bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.server.handouts.release(n.ledger.recorded(done))
}

// watchLedger sees to it that what is left in the ledger is recorded later.
func (n *session) watchLedger() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.ledger.entries) > 0 {
		n.server.handouts.watch(n)
	}
}

func (n *session) refs(ids []identity.MessageID) []store.MessageRef {
	refs := make([]store.MessageRef, len(ids))
	for i, id := range ids {
		refs[i] = store.MessageRef{ClientID: n.id, ID: id}
	}
	return refs
}

// plan is the handout of messages that are about to be written. Their attempts are recorded later if there is room for
// them in the ledger. The caller holds mu.
func (n *session) plan(messages []*store.PendingMessage) handout {
	h := handoutOf(messages)
	count := len(h.attempts)
	if count == 0 || n.over || !n.server.handouts.reserve(count) {
		return h
	}
	if h.later = n.ledger.add(messages); !h.later {
		n.server.handouts.release(count)
	}
	return h
}

// written ends a planned handout of which out was written, and returns what is to be recorded about it now. A session that
// has broken meanwhile gives its messages back.
func (n *session) written(planned, out handout) handout {
	n.mu.Lock()
	defer n.mu.Unlock()
	out.lost = n.broken
	if !planned.later || n.over {
		return out
	}
	n.server.handouts.release(n.ledger.settle(out.attempts, time.Now()))
	if len(n.ledger.entries) > 0 {
		n.server.handouts.watch(n)
	}
	out.attempts = nil
	return out
}

// Acknowledged takes the word that messages to clients are complete, after that was committed.
func (s *Server) Acknowledged(refs []store.MessageRef) {
	for _, ref := range refs {
		if n := s.registry.get(ref.ClientID); n != nil {
			n.acknowledged(ref.ID)
		}
	}
}

func (n *session) acknowledged(id identity.MessageID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.server.handouts.release(n.ledger.remove(func(e *entry) bool { return e.id == id }))
}

// makeWay records what is in the ledger, because a fetch got nothing else.
func (n *session) makeWay() {
	n.mu.Lock()
	refs := n.refs(n.ledger.take())
	n.server.handouts.release(len(refs))
	left := len(n.ledger.entries) > 0
	n.mu.Unlock()
	n.recordAttempts(handout{attempts: refs})
	if left { // it is being recorded
		n.retryFetch()
		return
	}
	n.finishFetch(true)
}

// giveBack empties the ledger of a session that has ended. What was not written, or is being recorded, needs no word. After
// an end in order the client is taken to have what it got.
func (n *session) giveBack() {
	n.mu.Lock()
	to := n.server.attempts
	if n.broken {
		to = n.server.returns
	}
	refs := n.refs(n.ledger.take())
	rest := n.ledger.remove(func(*entry) bool { return true })
	n.server.handouts.release(len(refs) + rest)
	n.mu.Unlock()
	if len(refs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	if _, err := to.Do(ctx, refs); err != nil {
		n.server.metrics.complain("giving back what client %s did not acknowledge: %v", n.id, err)
	}
}
