package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"time"

	"github.com/farspeak/farspeak/internal/store"
)

const (
	// ticketKeyAge is how long a key encrypts new tickets. Older ones still open theirs.
	ticketKeyAge = 12 * time.Hour
	// ticketKeysKept bounds how long a ticket can be used: two ages at least, three at most.
	ticketKeysKept = 3
	// ticketRefresh is how often a server looks for keys of the others. A ticket under a key that a server has not read
	// yet costs a full handshake, and with our agents one that they give up before it.
	ticketRefresh = time.Minute
)

// refreshTickets gives the TLS configuration the keys that all servers share, so that a client resumes on any of them at a
// fraction of a handshake; it adds a key when the newest is old. What a ticket carries is the client's certificate; the
// contact is authorized anew, so a blacklisted key gains nothing by resuming.
func (s *Server) refreshTickets(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	keys, err := s.cfg.Store.TicketKeys(ctx, ticketKeysKept)
	if err != nil {
		return err
	}
	if len(keys) == 0 || s.storeNow().Sub(keys[0].Created) > ticketKeyAge {
		fresh := newTicketKey()
		if err := s.cfg.Store.AddTicketKey(ctx, fresh); err != nil {
			return err
		}
		keys = append([]store.TicketKey{fresh}, keys...)
	}
	secrets := make([][32]byte, len(keys))
	for i, key := range keys {
		secrets[i] = key.Key
	}
	s.cfg.TLS.SetSessionTicketKeys(secrets)
	return nil
}

func newTicketKey() store.TicketKey {
	var key store.TicketKey
	rand.Read(key.ID[:]) // never fails
	rand.Read(key.Key[:])
	return key
}

// refreshTicketsForever keeps the keys fresh. Without the store the last ones stay in use.
func (s *Server) refreshTicketsForever(ctx context.Context) {
	for s.cfg.TLS != nil && pause(ctx, jittered(ticketRefresh)) {
		if err := s.guard(func() error { return s.refreshTickets(ctx) }); err != nil && ctx.Err() == nil {
			s.metrics.complain("session ticket keys: %v", err)
		}
	}
}

// withTickets turns session tickets on in a configuration of its own.
func withTickets(cfg *tls.Config) *tls.Config {
	if cfg == nil {
		return nil
	}
	own := cfg.Clone()
	own.SessionTicketsDisabled = false
	return own
}
