package server

import (
	"context"
	"slices"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/wire"
)

// serverExpiry is how long a silent server stays listed: a database that forgot a server sooner was lost or replaced.
const serverExpiry = 24 * HeartbeatInterval

// checkMemory finds out whether the store still knows this server. A store that does not was lost or replaced by an empty
// one, and knows none of its clients either: those that are connected are registered again, without waiting for their next
// connection. Nobody has to restart anything.
func (s *Server) checkMemory(ctx context.Context) error {
	listed, err := s.cfg.Store.ListServers(ctx, serverExpiry)
	if err != nil {
		return err
	}
	known := slices.ContainsFunc(listed, func(info store.ServerInfo) bool { return info.ID == s.cfg.ID })
	if known || s.Draining() {
		return nil
	}
	glog.Warningf("the store has forgotten this server: registering %d connected clients again", s.Sessions())
	return s.registerAgain(ctx)
}

// registerAgain records a contact for every session, which registers clients that the store does not know. The key comes
// with the session. It goes through the contact batcher, whose queue holds it back when the store is slow.
func (s *Server) registerAgain(ctx context.Context) (err error) {
	s.registry.each(func(n *session) bool {
		var outcome store.ContactOutcome
		outcome, err = s.contacts.Do(ctx, contactEvent{update: n.contactAgain()})
		if err == nil && outcome.Err != nil {
			s.metrics.complain("client %s cannot be registered again: %v", n.id, outcome.Err)
		}
		n.mark()
		return err == nil
	})
	return err
}

// contactAgain is the contact by which a live session's client is registered anew.
func (n *session) contactAgain() *store.ContactUpdate {
	n.mu.Lock()
	defer n.mu.Unlock()
	update := &store.ContactUpdate{
		ClientID: n.id, Key: n.key, SentNonce: wire.NewNonce(), Address: n.address, StreamingTo: n.server.cfg.Address,
	}
	for _, label := range n.labels {
		if label.Service == clientService {
			update.ClaimedLabels = append(update.ClaimedLabels, label.Label)
		}
	}
	return update
}
