package server

import (
	"slices"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

// What peers hand over: messages that they stored just now for clients whose sessions are here. To push them a session need
// not read the store, when it can tell that a fetch would return just these messages.

// What became of messages that were handed over: values of a metric label.
const (
	handedPushed = "pushed"
	handedRead   = "read"
)

// HandOver takes messages that were committed just now, each client's in order. It never blocks. What cannot be pushed at once
// is left to a fetch, as after any hint.
func (s *Server) HandOver(handovers []*store.Handover) {
	clients := make(map[identity.ClientID][]*store.Handover, len(handovers))
	for _, h := range handovers {
		clients[h.Message.ClientID] = append(clients[h.Message.ClientID], h)
	}
	for id, handed := range clients {
		outcome := handedRead
		if n := s.registry.get(id); n != nil && n.handOver(handed) {
			outcome = handedPushed
		} else {
			s.Wake([]identity.ClientID{id})
		}
		s.metrics.handedOver.WithLabelValues(outcome).Add(float64(len(handed)))
	}
}

// handOver starts the push of messages that were handed over; false says that they have to be read.
func (n *session) handOver(handed []*store.Handover) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.followsLocked(handed) {
		return false
	}
	n.phase = fetchBusy
	due := &store.DueMessages{Messages: make([]*store.PendingMessage, len(handed))}
	for i, h := range handed {
		due.Messages[i] = h.Message
	}
	n.server.pushes.start(n, func() { n.deliver(due) })
	return true
}

// followsLocked says whether a fetch by this session would return just these messages: they are for it and not for one before
// or after, everything older went out in it, and they did not. That holds against repeats, too, however late.
func (n *session) followsLocked(handed []*store.Handover) bool {
	if !n.takesMessagesLocked() || n.phase != fetchIdle || n.starved || n.behind {
		return false
	}
	last := n.handed
	for _, h := range handed {
		fits := h.Contact.UnixMicro() == n.contact && h.After <= last && h.Message.Seq > last
		if !fits || (n.asked != nil && !slices.Contains(n.asked, h.Message.Service)) {
			return false
		}
		last = h.Message.Seq
	}
	return true
}

// beginAnew notes that the contact by which the session began was recorded again.
func (n *session) beginAnew(contact time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.contact = contact.UnixMicro()
}
