package server

import (
	"bytes"
	"context"
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
	if n.opening || n.silent || n.blacklisted {
		n.mu.Unlock()
		return
	}
	offers, last := b.offers(n.id, n.labels, n.seen)
	n.seen = last
	n.mu.Unlock()
	if len(offers) == 0 {
		return
	}
	wanted := assignment{client: n.id, offers: offers}
	err := b.assign.DoAsync(wanted, func(instances []*store.PendingMessage, err error) {
		switch {
		case err != nil:
			b.missed(n)
		case len(instances) > 0:
			b.server.pushes.Go(func() { n.pushBroadcasts(instances) })
		}
	})
	if err != nil {
		b.missed(n)
	}
}

// missed remembers that an offer to a session failed, for the next refresh.
func (b *broadcasts) missed(n *session) {
	n.mu.Lock()
	n.seen = 0
	n.mu.Unlock()
	b.behind.Store(true)
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
	return !n.opening && !n.silent && !n.blacklisted && a.fitsLabels(n.labels) && !a.knownTo(n.id)
}

// pushBroadcasts sends instances of broadcasts. They need no tokens; their attempt is recorded already, so that they come
// again when this write is lost.
func (n *session) pushBroadcasts(instances []*store.PendingMessage) {
	for len(instances) > 0 {
		count := fitting(instances, n.server.cfg.MaxPushBytes)
		if err := n.push(instances[:count]); err != nil {
			n.stream.abort()
			return
		}
		instances = instances[count:]
	}
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

// Blacklisted tells connected clients at once that their identity is refused (G-10): in every session of theirs, for a
// key that was copied has one for each copy, and each copy has to hear of it.
func (s *Server) Blacklisted(ids []identity.ClientID) {
	for _, id := range ids {
		for _, n := range s.registry.sessions(id) {
			s.pushes.Go(n.blacklist)
		}
	}
}

// blacklist ends ordinary pushes to the session and asks the client, once, to take a new key. A client that was told to
// leave hears of it in its next session.
func (n *session) blacklist() {
	n.mu.Lock()
	n.blacklisted = true
	told := n.rekeyed || n.silent && !n.replaced || n.opening // opened does it in the end
	n.rekeyed = n.rekeyed || !n.opening
	n.mu.Unlock()
	if told {
		return
	}
	ctx, cancel := context.WithTimeout(n.server.life, contactTimeout)
	defer cancel()
	if err := n.push([]*store.PendingMessage{n.server.rekeyRequest(ctx, n.id)}); err != nil {
		n.stream.abort()
	}
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
