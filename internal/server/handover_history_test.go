package server_test

import (
	"sync"
	"testing"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// history is what happened to messages, in the order in which it was noticed.
type history struct {
	mu       sync.Mutex
	now      int64 // counts events
	epoch    int   // counts barriers
	messages map[identity.MessageID]*sentMessage
	sessions []*seenSession
}

// sentCall is one call that stored messages.
type sentCall struct {
	admin           int
	began, returned int64
}

type sentMessage struct {
	id           identity.MessageID
	client       identity.ClientID
	service      string
	call         *sentCall
	seq          int64 // 0 when it is not known
	arrived      bool
	acknowledged int // epoch; 0 when it was not
}

type seenSession struct {
	client  identity.ClientID
	began   int64
	ended   bool
	arrival []arrival
}

type arrival struct {
	id    identity.MessageID
	epoch int
}

func newHistory() *history {
	return &history{epoch: 1, messages: make(map[identity.MessageID]*sentMessage)}
}

func (h *history) tick() int64 {
	h.now++
	return h.now
}

// pass notes a barrier.
func (h *history) pass() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.epoch++
}

func (h *history) begin(admin int) *sentCall {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &sentCall{admin: admin, began: h.tick()}
}

func (h *history) add(call *sentCall, m *fspb.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := identity.MessageID(m.MessageId)
	h.messages[id] = &sentMessage{
		id: id, client: identity.ClientID(m.Destination.ClientId), service: m.Destination.ServiceName, call: call,
	}
}

func (h *history) finish(call *sentCall, handed []*store.Handover) {
	h.mu.Lock()
	defer h.mu.Unlock()
	call.returned = h.tick()
	for _, handover := range handed {
		h.messages[handover.Message.ID].seq = handover.Message.Seq
	}
}

func (h *history) open(client identity.ClientID) *seenSession {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &seenSession{client: client, began: h.tick()}
	h.sessions = append(h.sessions, s)
	return s
}

func (h *history) leave(s *seenSession) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.ended = true
}

func (h *history) arrived(s *seenSession, messages []*fspb.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range messages {
		id := identity.MessageID(m.MessageId)
		s.arrival = append(s.arrival, arrival{id, h.epoch})
		h.messages[id].arrived = true
	}
}

func (h *history) received(s *randomSession) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(s.seen.arrival)
}

// outstanding are the messages that a client got and has not acknowledged.
func (h *history) outstanding(client identity.ClientID) (ids []identity.MessageID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, m := range h.messages {
		if m.client == client && m.arrived && m.acknowledged == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

func (h *history) acknowledged(ids []identity.MessageID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		h.messages[id].acknowledged = h.epoch
	}
}

func (h *history) unacknowledged(client identity.ClientID) map[identity.MessageID]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids := make(map[identity.MessageID]bool)
	for id, m := range h.messages {
		if m.client == client && m.acknowledged == 0 {
			ids[id] = true
		}
	}
	return ids
}

// checkAll compares what the last session got with what it should get.
func (h *history) checkAll(t *testing.T, s *randomSession, wanted map[identity.MessageID]bool) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range s.seen.arrival {
		if !wanted[a.id] {
			t.Errorf("message %s came to the last session of client %s, again or after its acknowledgement", a.id, s.seen.client)
		}
		delete(wanted, a.id)
	}
	for id := range wanted {
		t.Errorf("message %s never came to the last session of client %s", id, s.seen.client)
	}
}

// check says what a session got and should not, or in another order.
func (h *history) check(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	compared := 0
	for _, s := range h.sessions {
		seen := make(map[identity.MessageID]bool)
		for _, a := range s.arrival {
			if seen[a.id] {
				t.Errorf("message %s came twice in one session of client %s", a.id, s.client)
			}
			seen[a.id] = true
			if done := h.messages[a.id].acknowledged; done != 0 && a.epoch > done {
				t.Errorf("message %s came to client %s after it had been acknowledged", a.id, s.client)
			}
		}
		compared += h.checkOrder(t, s)
	}
	if compared == 0 {
		t.Error("no two messages had an order that could be compared")
	}
}

// checkOrder looks at messages of one sender to one service of which one was stored before the other, both in the time of this
// session: no other one was handed them.
func (h *history) checkOrder(t *testing.T, s *seenSession) (compared int) {
	t.Helper()
	for i, a := range s.arrival {
		later := h.messages[a.id]
		for _, b := range s.arrival[i+1:] {
			earlier := h.messages[b.id]
			if earlier.call.admin != later.call.admin || earlier.service != later.service || earlier.call.began < s.began {
				continue
			}
			compared++
			if earlier.call.returned < later.call.began && !h.overtaken(earlier) {
				t.Errorf("message %s came before %s in a session of client %s, and was stored after it", later.id, earlier.id, s.client)
			}
		}
	}
	return compared
}

// overtaken says whether another call, at the same time, may have stored a message with a higher number first. The word of such a
// message may be lost or late without being missed by what comes after it.
func (h *history) overtaken(m *sentMessage) bool {
	for _, other := range h.messages {
		if other.client == m.client && other.call != m.call && other.seq >= m.seq && other.call.began < m.call.returned {
			return true
		}
	}
	return false
}
