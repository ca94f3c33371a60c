package admin_test

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"github.com/farspeak/farspeak/internal/admin"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// failingStore fails every method in the same way, and counts the calls.
type failingStore struct {
	err   error
	calls atomic.Int32
}

var _ admin.Store = (*failingStore)(nil)

func (s *failingStore) fail() error {
	s.calls.Add(1)
	return s.err
}

func (s *failingStore) GetClients(context.Context, []identity.ClientID) (map[identity.ClientID]*store.Client, error) {
	return nil, s.fail()
}

func (s *failingStore) ListClients(context.Context, identity.ClientID, int) ([]*store.Client, error) {
	return nil, s.fail()
}

func (s *failingStore) ListClientIDs(context.Context, identity.ClientID, int, bool, time.Time) ([]identity.ClientID, error) {
	return nil, s.fail()
}

func (s *failingStore) ListContacts(context.Context, identity.ClientID, time.Time, int) ([]store.Contact, error) {
	return nil, s.fail()
}

func (s *failingStore) ListClientServices(context.Context, identity.ClientID) ([]store.ClientService, error) {
	return nil, s.fail()
}

func (s *failingStore) FetchResourceUsage(context.Context, identity.ClientID, time.Time, time.Time, int64, int) ([]store.ResourceUsage, error) {
	return nil, s.fail()
}

func (s *failingStore) BlacklistClient(context.Context, identity.ClientID) (string, error) {
	return "", s.fail()
}

func (s *failingStore) InsertMessages(context.Context, []*fspb.Message) ([]store.InsertOutcome, error) {
	return nil, s.fail()
}

func (s *failingStore) MessageStatus(context.Context, identity.MessageID) (*store.MessageStatus, error) {
	return nil, s.fail()
}

func (s *failingStore) PendingIDs(context.Context, []identity.ClientID, *identity.MessageID, int) ([]identity.MessageID, error) {
	return nil, s.fail()
}

func (s *failingStore) PendingMessages(context.Context, []identity.MessageID, bool) ([]*fspb.Message, error) {
	return nil, s.fail()
}

func (s *failingStore) PendingCount(context.Context, []identity.ClientID) (uint64, error) {
	return 0, s.fail()
}

func (s *failingStore) DeletePending(context.Context, []identity.ClientID, string) (int64, error) {
	return 0, s.fail()
}

func (s *failingStore) AddBacklog(context.Context, []store.BacklogMessage, time.Duration, uint64) ([]error, error) {
	return nil, s.fail()
}

func (s *failingStore) BacklogStatus(context.Context) ([]store.BacklogStatus, error) {
	return nil, s.fail()
}

func (s *failingStore) DeadLetterServices(context.Context) ([]string, error) {
	return nil, s.fail()
}

func (s *failingStore) ListDeadLetters(context.Context, string, identity.MessageID, int, bool) ([]store.DeadLetter, error) {
	return nil, s.fail()
}

func (s *failingStore) RetryDeadLetters(context.Context, string, []identity.MessageID) (int64, error) {
	return 0, s.fail()
}

func (s *failingStore) DeleteDeadLetters(context.Context, string, []identity.MessageID) (int64, error) {
	return 0, s.fail()
}

func (s *failingStore) CreateBroadcast(context.Context, *store.Broadcast) error { return s.fail() }

func (s *failingStore) ActiveBroadcasts(context.Context) ([]*store.Broadcast, error) {
	return nil, s.fail()
}

func (s *failingStore) DisableBroadcasts(context.Context, []identity.BroadcastID) error {
	return s.fail()
}

func (s *failingStore) PutFile(context.Context, string, string, io.Reader) error { return s.fail() }

func (s *failingStore) DeleteFile(context.Context, string, string) error { return s.fail() }

func (s *failingStore) ListServers(context.Context, time.Duration) ([]store.ServerInfo, error) {
	return nil, s.fail()
}

func (s *failingStore) Ping(context.Context) error { return s.err } // not counted: the prober calls it
