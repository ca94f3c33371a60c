package server

import (
	"context"
	"errors"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/batch"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

// Bounds of the batchers. Each queue holds more than the clients that can wait at once; when one is full, contacts wait
// (backpressure), and hints stay with their sessions and are tried again.
const (
	lookupBatch   = 256
	contactBatch  = 128
	fetchBatch    = 128
	fetchQueue    = 1 << 17
	attemptBatch  = 256
	lookupWorkers = 2
	flushTimeout  = 15 * time.Second
)

// A question for many clients costs the database little more than one for a single client, and a second fetcher would take
// the first mark of each wave for itself. So it fetches only while the first one's question takes long.
const (
	fetchWorkers  = 2
	fetchPatience = 100 * time.Millisecond
	fetchTimeout  = 15 * time.Second
)

// startBatchers makes the batchers: from here on, closeBatchers has to be called.
func (s *Server) startBatchers() error {
	var errs [7]error
	s.lookups, errs[0] = batch.New(batch.Config[identity.ClientID, *store.Client]{
		Name: "client_lookups", Run: s.lookUp, MaxItems: lookupBatch, Workers: lookupWorkers,
		Split: worthSplitting, Timeout: contactTimeout, Registerer: s.cfg.Registerer,
	})
	s.contacts, errs[1] = batch.New(batch.Config[contactEvent, store.ContactOutcome]{
		Name: "contacts", Run: s.writeContacts, MaxItems: contactBatch,
		Split: worthSplitting, Timeout: contactTimeout, Registerer: s.cfg.Registerer,
	})
	s.fetches, errs[2] = batch.New(batch.Config[fetchTurn, *store.DueMessages]{
		Name: "fetches", Run: s.fetch, MaxItems: fetchBatch, Queue: fetchQueue,
		Workers: fetchWorkers, Patience: fetchPatience, Split: worthSplitting, Timeout: fetchTimeout, Registerer: s.cfg.Registerer,
	})
	s.attempts, errs[3] = batch.New(batch.Config[[]store.MessageRef, struct{}]{
		Name: "attempts", Run: s.writeAttempts, MaxItems: attemptBatch,
		Split: worthSplitting, Registerer: s.cfg.Registerer,
	})
	s.returns, errs[4] = batch.New(batch.Config[[]store.MessageRef, struct{}]{
		Name: "returns", Run: s.writeReturns, MaxItems: attemptBatch,
		Split: worthSplitting, Registerer: s.cfg.Registerer,
	})
	s.undone, errs[5] = batch.New(batch.Config[[]store.MessageRef, struct{}]{
		Name: "undone_attempts", Run: s.writeUndone, MaxItems: attemptBatch, Queue: fetchQueue,
		Split: worthSplitting, Registerer: s.cfg.Registerer,
	})
	s.broadcasts, errs[6] = newBroadcasts(s)
	return errors.Join(errs[:]...)
}

// worthSplitting says whether a failed batch may owe its failure to one of its items.
func worthSplitting(err error) bool {
	return !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) &&
		!errors.Is(err, context.Canceled)
}

// closeBatchers flushes what was taken and waits for the workers: those that feed others first.
func (s *Server) closeBatchers() {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	err := errors.Join(s.fetches.Close(ctx), s.broadcasts.close(ctx), s.lookups.Close(ctx)) // these start pushes
	s.crew.Close()
	err = errors.Join(err, s.attempts.Close(ctx), s.returns.Close(ctx), s.undone.Close(ctx), s.contacts.Close(ctx), s.idle.close())
	if err != nil {
		glog.Warningf("flushing at the end: %v", err)
	}
}
