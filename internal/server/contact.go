package server

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/farspeak/farspeak/internal/clientcert"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/wire"
)

// clientService owns the labels that an agent claims for itself.
const clientService = "client"

// peer is who stands at the other end of a request: authenticated, not yet authorized.
type peer struct {
	*clientcert.Identity
	address string // observed, host:port
}

// authenticate finds the key of the peer, from its TLS certificate or from the headers of the front end.
func (s *Server) authenticate(r *http.Request) (peer, error) {
	who, err := s.cfg.Certificates.Extract(r.TLS, r.Header, socketAddress(r))
	if err != nil {
		return peer{}, refuse(http.StatusBadRequest, "certificate", "%v", err)
	}
	return peer{Identity: who, address: r.RemoteAddr}, nil
}

// recordContact registers the client when it is new, compares its key, and records the contact. streamingTo is empty for
// a poll. It returns the client as stored and the nonce of this contact.
func (s *Server) recordContact(ctx context.Context, p peer, rec record, streamingTo string) (*store.Client, uint64, error) {
	if err := s.admitRegistration(ctx, p); err != nil {
		return nil, 0, err
	}
	nonce := wire.NewNonce()
	outcome, err := s.contacts.Do(ctx, contactEvent{update: &store.ContactUpdate{
		ClientID:      p.ID,
		Key:           p.SPKI,
		ClaimedLabels: rec.labels,
		SentNonce:     nonce,
		ReceivedNonce: rec.data.SequencingNonce,
		Address:       p.address,
		Clock:         rec.data.ClientClock,
		StreamingTo:   streamingTo,
	}})
	switch {
	case err != nil:
		return nil, 0, failed("the contact cannot be recorded", err)
	case errors.Is(outcome.Err, store.ErrKeyMismatch):
		return nil, 0, s.impostor(p)
	case outcome.Err != nil:
		return nil, 0, failed("the contact cannot be recorded", outcome.Err)
	}
	if outcome.New {
		s.metrics.registrations.Inc()
	}
	return outcome.Client, nonce, nil
}

// admitRegistration lets known clients pass, and unknown ones at the configured pace.
func (s *Server) admitRegistration(ctx context.Context, p peer) error {
	known, err := s.lookups.Do(ctx, p.ID)
	switch {
	case err != nil:
		return failed("the client cannot be looked up", err)
	case known != nil && !slices.Equal(known.Key, p.SPKI):
		return s.impostor(p)
	case known != nil || s.registrations.allow(p.address):
		return nil
	}
	r := refuse(http.StatusServiceUnavailable, "registration_rate", "too many new clients, try again later")
	r.retryAfter = registrationRetry
	return r
}

// impostor refuses a key that shares its ID with another client: either a collision that somebody computed, or a damaged
// database. Both need an operator (G-44).
func (s *Server) impostor(p peer) error {
	s.metrics.keyMismatches.Inc()
	s.metrics.complain("ALARM: %s presented a key whose client ID %s belongs to another key; refused", p.address, p.ID)
	return refuse(http.StatusForbidden, "key_mismatch", "not authorized")
}

// lookUp answers one batch of client lookups; nil stands for an unknown client.
func (s *Server) lookUp(ctx context.Context, ids []identity.ClientID) ([]*store.Client, error) {
	known, err := s.cfg.Store.GetClients(ctx, ids)
	if err != nil {
		return nil, err
	}
	clients := make([]*store.Client, len(ids))
	for i, id := range ids {
		clients[i] = known[id]
	}
	return clients, nil
}
