package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/clientcert"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
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

// record is one decoded record of a client.
type record struct {
	labels   []string // claimed
	data     *fspb.ContactData
	validity *fspb.ValidationInfo
}

// decode parses one record and checks its signatures. The checks that need no store all stand here, so that a contact
// which fails them leaves no trace (G-32).
func (s *Server) decode(body []byte) (record, error) {
	var wrapped fspb.WrappedContactData
	if err := proto.Unmarshal(body, &wrapped); err != nil {
		return record{}, refuse(http.StatusBadRequest, "malformed", "the body is no WrappedContactData")
	}
	if !s.labelled(wrapped.ClientLabels) {
		return record{}, refuse(http.StatusServiceUnavailable, "not_authorized", "not authorized")
	}
	// Validity is an input of an authorizer that asks for it; the built-in one does not.
	if _, err := clientcert.VerifyAll(wrapped.ContactData, wrapped.Signatures); err != nil {
		return record{}, failedPeer("signature", err.Error())
	}
	var data fspb.ContactData
	if err := proto.Unmarshal(wrapped.ContactData, &data); err != nil {
		return record{}, failedPeer("malformed", "contact_data cannot be parsed")
	}
	if len(data.Messages) > wire.MaxMessagesPerRecord {
		return record{}, failedPeer("too_many_messages",
			fmt.Sprintf("%d messages in a record, at most %d are allowed", len(data.Messages), wire.MaxMessagesPerRecord))
	}
	return record{labels: wrapped.ClientLabels, data: &data}, nil
}

// failedPeer is a fault of the peer that the wire protocol reports as a failed contact.
func failedPeer(reason, text string) *refusal {
	return refuse(http.StatusInternalServerError, reason, "error processing contact: %s", text)
}

func (s *Server) labelled(claimed []string) bool {
	return s.cfg.RequiredLabel == "" || slices.Contains(claimed, s.cfg.RequiredLabel)
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

// contactEvent is what the contact batcher takes: the start of a contact, or the end of a session. They share a batcher so
// that they reach the store in the order in which they happened.
type contactEvent struct {
	update *store.ContactUpdate
	end    *store.SessionEnd
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
		case !s.registry.held(event.end.ClientID):
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
