package server

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// What reaches a session besides the messages that were inserted for its client: broadcasts and rekey requests.

// offer assigns to a session the broadcasts that it was not offered yet, and pushes what it gets.
func (b *broadcasts) offer(n *session) {
	n.mu.Lock()
	if n.opening != nil || !n.takesMessagesLocked() {
		n.mu.Unlock()
		return
	}
	offers, last := b.offers(n.id, n.labels, n.seen)
	n.seen = last
	n.mu.Unlock()
	if len(offers) == 0 {
		return
	}
	weight := weighOffers(offers)
	if !b.memory.tryTake(weight) {
		b.missed(n)
		return
	}
	err := b.assign.DoAsync(assignment{client: n.id, offers: offers}, func(got assigned, err error) {
		if err != nil || got.err != nil {
			b.missed(n)
		}
		b.push(got.instances, weight)
	})
	if err != nil {
		b.memory.give(weight)
		b.missed(n)
	}
}

// missed remembers that an offer to a session failed, for the next time that the broadcasts are looked at.
func (b *broadcasts) missed(n *session) {
	n.mu.Lock()
	n.seen = 0
	n.mu.Unlock()
	b.fallBehind()
}

func (b *broadcasts) fallBehind() {
	b.behind.Store(true)
	poke(b.missing)
}

// catchUp offers again what was missed.
func (b *broadcasts) catchUp() {
	if !b.behind.Swap(false) {
		return
	}
	b.server.registry.each(func(n *session) bool {
		b.offer(n)
		return true
	})
}

// fits says whether a connected client is meant by a broadcast.
func (n *session) fits(a *activeBroadcast) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.opening == nil && n.takesMessagesLocked() && a.fitsLabels(n.labels) && !a.knownTo(n.id)
}

// push sends instances of one client's broadcasts to the session that is current by now, and gives weight back then. They
// need no tokens; their attempt is recorded already, so that they come again when this write is lost. When there is no session
// any more, or it takes nothing, that is undone: the client gets them with its next session.
func (b *broadcasts) push(instances []*store.PendingMessage, weight int64) {
	var n *session
	if len(instances) > 0 {
		n = b.server.registry.get(instances[0].ClientID)
	}
	if n == nil {
		b.memory.give(weight)
		b.server.undo(instances)
		return
	}
	n.pushWhenOpen(func() {
		defer b.memory.give(weight)
		sent := n.pushAll(instances)
		b.server.undo(instances[len(sent):])
	})
}

// relabel takes the labels that a client reported of itself, and offers it what they open. Labels that belong to other
// services stay.
func (n *session) relabel(reported []store.Label) {
	labels := slices.Clone(reported)
	n.mu.Lock()
	for _, label := range n.labels {
		if label.Service != clientService {
			labels = append(labels, label)
		}
	}
	n.labels = labels
	n.seen = 0
	n.mu.Unlock()
	n.server.broadcasts.offer(n)
}

// Blacklisted takes the hint that clients were blacklisted. The store is asked whether it is true: a client that takes a
// new key on the word of a forged notification would have lost its identity. Then the client is told at once (G-10), in
// every session of it: a key that was copied has one for each copy. When this hint is lost, the request to take a new key
// is found in the queue like any message.
func (s *Server) Blacklisted(ids []identity.ClientID) {
	for _, id := range ids {
		sessions := s.registry.sessions(id)
		if len(sessions) == 0 {
			continue
		}
		err := s.lookups.DoAsync(id, func(client *store.Client, err error) {
			if err != nil || client == nil || !client.Blacklisted {
				return
			}
			for _, n := range sessions {
				s.pushes.start(n, n.blacklist)
			}
		})
		if err != nil {
			s.metrics.postponedMarks.Inc()
		}
	}
}

// blacklist ends ordinary pushes to the session and asks the client to take a new key.
func (n *session) blacklist() {
	n.mu.Lock()
	n.blacklisted = true
	asked := n.rekeyed || n.opening != nil // opened does it in the end
	n.mu.Unlock()
	if !asked {
		n.askForKey()
	}
}

// askForKey sends the request to take a new key, once. A client that was told to leave gets it in its next session.
func (n *session) askForKey() {
	if !n.takesRekey() {
		return
	}
	ctx, cancel := context.WithTimeout(n.server.life, contactTimeout)
	defer cancel()
	request := []*store.PendingMessage{n.server.rekeyRequest(ctx, n.id)}
	if err := n.push(request, n.beginRekey); err != nil && !errors.Is(err, errSilent) {
		n.stream.abort()
	}
}

func (n *session) takesRekey() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.takesRekeyLocked()
}

// A session that was replaced is asked too: another copy of the key may hold it.
func (n *session) takesRekeyLocked() bool { return !n.rekeyed && !n.left && !n.over }

// beginRekey is takesRekey for the one who then asks.
func (n *session) beginRekey() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	wanted := n.takesRekeyLocked()
	n.rekeyed = n.rekeyed || wanted
	return wanted
}

// rekeyRequest is the message that asks a blacklisted client to take a new key. There is one for a client, whatever it does
// (G-10): its ID follows from the client's, and storing it again changes nothing. It is sent even when it cannot be
// stored, because an acknowledgement of an unknown message is harmless.
func (s *Server) rekeyRequest(ctx context.Context, id identity.ClientID) *store.PendingMessage {
	m := store.RekeyRequest(id)
	if _, err := s.cfg.Store.InsertMessages(ctx, []*fspb.Message{m}); err != nil {
		s.metrics.complain("storing the rekey request of client %s: %v", id, err)
	}
	encoded, err := proto.Marshal(m)
	if err != nil {
		s.metrics.complain("encoding the rekey request of client %s: %v", id, err)
	}
	return &store.PendingMessage{
		ClientID: id, ID: identity.RekeyMessageID(id), Service: systemService, Type: m.MessageType, Encoded: encoded,
	}
}

// tookKey says whether a record acknowledges the request to take a new key.
func (n *session) tookKey(rec record) bool {
	n.mu.Lock()
	asked := n.rekeyed
	n.mu.Unlock()
	return asked && slices.ContainsFunc(rec.data.Messages, n.acknowledgesRekey)
}

func (n *session) acknowledgesRekey(m *fspb.Message) bool {
	var ack fspb.MessageAckData
	if m.Destination.GetServiceName() != systemService || !m.Data.MessageIs(&ack) || m.Data.UnmarshalTo(&ack) != nil {
		return false
	}
	wanted := identity.RekeyMessageID(n.id).Bytes()
	return slices.ContainsFunc(ack.MessageIds, func(id []byte) bool { return bytes.Equal(id, wanted) })
}
