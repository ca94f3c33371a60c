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

// ownAddresses says that clients have addresses of their own. Behind a front end that ends TLS all have that of the front end.
func ownAddresses(certificates *clientcert.Extractor) bool {
	return certificates.Mode() == clientcert.MTLS
}

// contact is one contact as it was recorded.
type contact struct {
	client *store.Client // as stored
	nonce  uint64        // that this contact answers with
	first  bool          // it registered the client, so that nothing can wait for it
}

// recordContact registers the client when it is new, compares its key, and records the contact. streamingTo is empty for
// a poll.
func (s *Server) recordContact(ctx context.Context, p peer, rec record, streamingTo string) (contact, error) {
	place, err := s.admitRegistration(ctx, p)
	if err != nil {
		return contact{}, err
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
	place.settle(err == nil && outcome.New)
	switch {
	case err != nil:
		return contact{}, failed("the contact cannot be recorded", err)
	case errors.Is(outcome.Err, store.ErrKeyMismatch):
		return contact{}, s.impostor(p)
	case outcome.Err != nil:
		return contact{}, failed("the contact cannot be recorded", outcome.Err)
	}
	if outcome.New {
		s.metrics.registrations.Inc()
	}
	return contact{client: outcome.Client, nonce: nonce, first: outcome.New}, nil
}

// admitRegistration lets everybody pass while unknown clients may register, and known clients always: only when there is no
// place left they are looked up.
func (s *Server) admitRegistration(ctx context.Context, p peer) (reservation, error) {
	if place, ok := s.registrations.reserve(p.address); ok {
		return place, nil
	}
	known, err := s.lookups.Do(ctx, p.ID)
	switch {
	case err != nil:
		return reservation{}, failed("the client cannot be looked up", err)
	case known != nil && !slices.Equal(known.Key, p.SPKI):
		return reservation{}, s.impostor(p)
	case known != nil:
		return reservation{}, nil
	}
	r := refuse(http.StatusServiceUnavailable, "registration_rate", "too many new clients, try again later")
	r.retryAfter = registrationRetry
	return reservation{}, r
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
