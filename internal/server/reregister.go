package server

import (
	"context"
	"slices"
	"time"

	"github.com/golang/glog"
	"golang.org/x/sync/errgroup"

	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/wire"
)

// serverExpiry is how long a silent server is looked for, and shorter than servers are kept: a database that does not know
// this one was lost or replaced, and was not merely away for a while.
const serverExpiry = 12 * time.Hour

// checkMemory finds out whether the store still knows this server. A store that does not was lost or replaced by an empty
// one, and knows none of its clients either: those that are connected are registered again, without waiting for their next
// connection. Nobody has to restart anything.
func (s *Server) checkMemory(ctx context.Context) error {
	listed, err := s.listServers(ctx)
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

func (s *Server) listServers(ctx context.Context) ([]store.ServerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	return s.cfg.Store.ListServers(ctx, serverExpiry)
}

// registerAgain records a contact for every session, which registers clients that the store does not know. The key comes
// with the session. As many at a time as one commit holds go through the contact batcher.
func (s *Server) registerAgain(ctx context.Context) error {
	contacts, ctx := errgroup.WithContext(ctx)
	contacts.SetLimit(contactBatch)
	s.registry.each(func(n *session) bool {
		contacts.Go(func() error { return n.registerAgain(ctx) })
		return ctx.Err() == nil
	})
	return contacts.Wait()
}

func (n *session) registerAgain(ctx context.Context) error {
	outcome, err := n.server.contacts.Do(ctx, contactEvent{update: n.contactAgain()})
	if err != nil {
		return err
	}
	if outcome.Err != nil {
		n.server.metrics.complain("client %s cannot be registered again: %v", n.id, outcome.Err)
	} else {
		n.beginAnew(outcome.Client.LastContact)
	}
	n.mark()
	return nil
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
