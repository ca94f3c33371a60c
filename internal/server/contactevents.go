package server

import (
	"context"
	"time"

	"github.com/farspeak/farspeak/internal/store"
)

// contactEvent is what the contact batcher takes: the start of a contact, or the end of a session. They share a batcher so
// that they reach the store in the order in which they happened.
type contactEvent struct {
	update *store.ContactUpdate
	end    *store.SessionEnd
	ending *session // whose end it is
}

// contactTimeout bounds one transaction of contacts.
const contactTimeout = 15 * time.Second

// writeContacts runs one batch of contact events: ends first, because a session that ended has recorded its start in an
// earlier batch, and a client that came back since is held in the registry.
func (s *Server) writeContacts(ctx context.Context, events []contactEvent) ([]store.ContactOutcome, error) {
	var ends []store.SessionEnd
	var updates []store.ContactUpdate
	for _, event := range events {
		switch {
		case event.update != nil:
			updates = append(updates, *event.update)
		case !s.registry.heldBeside(event.ending):
			ends = append(ends, *event.end)
		}
	}
	if len(ends) > 0 {
		if err := s.cfg.Store.EndSessions(ctx, ends); err != nil {
			return nil, err
		}
	}
	outcomes := make([]store.ContactOutcome, len(events))
	if len(updates) == 0 {
		return outcomes, nil
	}
	recorded, err := s.cfg.Store.RecordContacts(ctx, updates)
	if err != nil {
		return nil, err
	}
	for i, event := range events {
		if event.update != nil {
			outcomes[i], recorded = recorded[0], recorded[1:]
		}
	}
	return outcomes, nil
}

// recordEnd writes down that the client has no session here any more, unless it has another one. It waits, for a moment, so
// that the ends of many sessions form a line of their goroutines and no queue of its own.
func (n *session) recordEnd(broken bool) {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	end := store.SessionEnd{ClientID: n.id, StreamingTo: n.server.cfg.Address, Broken: broken}
	if _, err := n.server.contacts.Do(ctx, contactEvent{end: &end, ending: n}); err != nil {
		n.server.metrics.lostEnds.Inc() // the next contact overwrites what stays behind
	}
}
