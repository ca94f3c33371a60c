package server_test

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// faultyStore is a store whose methods fail when told to.
type faultyStore struct {
	server.Store
	mu     sync.Mutex
	faults map[string]error
	gates  map[string]chan struct{}
	calls  map[string]int
}

// method names what can be told to fail.
const (
	getClients       = "GetClients"
	recordContacts   = "RecordContacts"
	endSessions      = "EndSessions"
	dueMessages      = "DueMessages"
	recordAttempts   = "RecordAttempts"
	returnMessages   = "ReturnMessages"
	dueClients       = "DueClients"
	activeBroadcasts = "ActiveBroadcasts"
	assignBroadcast  = "AssignBroadcast"
)

// withFaults puts a faultyStore before the store of a server.
func withFaults(faults **faultyStore) func(*server.Config) {
	return func(c *server.Config) {
		*faults = &faultyStore{
			Store: c.Store, faults: make(map[string]error), gates: make(map[string]chan struct{}), calls: make(map[string]int),
		}
		c.Store = *faults
	}
}

// fail makes a method fail from now on; nil lets it work again.
func (s *faultyStore) fail(method string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[method] = err
}

// hold makes calls of a method wait until the returned function is called.
func (s *faultyStore) hold(method string) (letGo func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gate := make(chan struct{})
	s.gates[method] = gate
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.gates, method)
		close(gate)
	})
}

func (s *faultyStore) count(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

func (s *faultyStore) fault(ctx context.Context, method string) error {
	s.mu.Lock()
	s.calls[method]++
	gate := s.gates[method]
	s.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults[method] == errPanicking {
		panic(errPanicking)
	}
	return s.faults[method]
}

// errPanicking makes a method panic.
var errPanicking = errors.New("told to panic")

func (s *faultyStore) GetClients(ctx context.Context, ids []identity.ClientID) (map[identity.ClientID]*store.Client, error) {
	if err := s.fault(ctx, getClients); err != nil {
		return nil, err
	}
	return s.Store.GetClients(ctx, ids)
}

func (s *faultyStore) RecordContacts(ctx context.Context, updates []store.ContactUpdate) ([]store.ContactOutcome, error) {
	if err := s.fault(ctx, recordContacts); err != nil {
		return nil, err
	}
	return s.Store.RecordContacts(ctx, updates)
}

func (s *faultyStore) EndSessions(ctx context.Context, ends []store.SessionEnd) error {
	if err := s.fault(ctx, endSessions); err != nil {
		return err
	}
	return s.Store.EndSessions(ctx, ends)
}

func (s *faultyStore) DueMessages(ctx context.Context, requests []store.DueRequest) (map[identity.ClientID]*store.DueMessages, error) {
	if err := s.fault(ctx, dueMessages); err != nil {
		return nil, err
	}
	return s.Store.DueMessages(ctx, requests)
}

func (s *faultyStore) RecordAttempts(ctx context.Context, refs []store.MessageRef, redeliverAfter time.Duration) error {
	if err := s.fault(ctx, recordAttempts); err != nil {
		return err
	}
	return s.Store.RecordAttempts(ctx, refs, redeliverAfter)
}

func (s *faultyStore) ReturnMessages(ctx context.Context, refs []store.MessageRef, redeliverAfter time.Duration) error {
	if err := s.fault(ctx, returnMessages); err != nil {
		return err
	}
	return s.Store.ReturnMessages(ctx, refs, redeliverAfter)
}

func (s *faultyStore) DueClients(ctx context.Context, after int64, limit int) ([]identity.ClientID, int64, error) {
	if err := s.fault(ctx, dueClients); err != nil {
		return nil, 0, err
	}
	return s.Store.DueClients(ctx, after, limit)
}

func (s *faultyStore) ActiveBroadcasts(ctx context.Context) ([]*store.Broadcast, error) {
	if err := s.fault(ctx, activeBroadcasts); err != nil {
		return nil, err
	}
	return s.Store.ActiveBroadcasts(ctx)
}

func (s *faultyStore) AssignBroadcast(ctx context.Context, id identity.BroadcastID, clients []identity.ClientID,
	instance func(identity.ClientID) *fspb.Message, redeliverAfter time.Duration) ([]*store.PendingMessage, error) {
	if err := s.fault(ctx, assignBroadcast); err != nil {
		return nil, err
	}
	return s.Store.AssignBroadcast(ctx, id, clients, instance, redeliverAfter)
}

// poisonedStore hands out messages that nobody can write.
type poisonedStore struct{ server.Store }

func (s poisonedStore) DueMessages(ctx context.Context, requests []store.DueRequest) (map[identity.ClientID]*store.DueMessages, error) {
	due, err := s.Store.DueMessages(ctx, requests)
	for _, d := range due {
		for i := range d.Messages {
			d.Messages[i] = nil
		}
	}
	return due, err
}
