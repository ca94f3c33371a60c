package admin

import (
	"context"
	"io"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Store is what fs-admin needs of a store; internal/store says what each method promises.
type Store interface {
	clientStore
	messageStore
	backlogStore
	broadcastStore
	fileStore
	serverStore
}

// clientStore answers questions about clients, and blacklists them.
type clientStore interface {
	GetClients(ctx context.Context, ids []identity.ClientID) (map[identity.ClientID]*store.Client, error)
	ListClients(ctx context.Context, after identity.ClientID, limit int) ([]*store.Client, error)
	ListClientIDs(ctx context.Context, after identity.ClientID, limit int, includeBlacklisted bool,
		lastContactAfter time.Time) ([]identity.ClientID, error)
	ListContacts(ctx context.Context, id identity.ClientID, after time.Time, limit int) ([]store.Contact, error)
	ListClientServices(ctx context.Context, id identity.ClientID) ([]store.ClientService, error)
	FetchResourceUsage(ctx context.Context, id identity.ClientID, start, end time.Time, after int64,
		limit int) ([]store.ResourceUsage, error)
	BlacklistClient(ctx context.Context, id identity.ClientID) (streamingTo string, err error)
}

// messageStore holds the messages to clients.
type messageStore interface {
	InsertMessages(ctx context.Context, messages []*fspb.Message) ([]store.InsertOutcome, error)
	MessageStatus(ctx context.Context, id identity.MessageID) (*store.MessageStatus, error)
	PendingIDs(ctx context.Context, clients []identity.ClientID, after *identity.MessageID, limit int) ([]identity.MessageID, error)
	PendingMessages(ctx context.Context, ids []identity.MessageID, wantData bool) ([]*fspb.Message, error)
	PendingCount(ctx context.Context, ids []identity.ClientID) (uint64, error)
	DeletePending(ctx context.Context, ids []identity.ClientID, reason string) (deleted int64, err error)
}

// backlogStore holds the messages to server-side services, waiting and dead.
type backlogStore interface {
	AddBacklog(ctx context.Context, messages []store.BacklogMessage, dueIn time.Duration, max uint64) ([]error, error)
	BacklogStatus(ctx context.Context) ([]store.BacklogStatus, error)
	DeadLetterServices(ctx context.Context) ([]string, error)
	ListDeadLetters(ctx context.Context, service string, after identity.MessageID, limit int,
		wantData bool) ([]store.DeadLetter, error)
	RetryDeadLetters(ctx context.Context, service string, ids []identity.MessageID) (int64, error)
	DeleteDeadLetters(ctx context.Context, service string, ids []identity.MessageID) (int64, error)
}

// broadcastStore holds the broadcasts.
type broadcastStore interface {
	CreateBroadcast(ctx context.Context, b *store.Broadcast) error
	ActiveBroadcasts(ctx context.Context) ([]*store.Broadcast, error)
	DisableBroadcasts(ctx context.Context, ids []identity.BroadcastID) error
}

// fileStore holds the files that clients may download.
type fileStore interface {
	PutFile(ctx context.Context, service, name string, r io.Reader) error
	DeleteFile(ctx context.Context, service, name string) error
}

// serverStore knows the servers, and whether it can be reached itself.
type serverStore interface {
	ListServers(ctx context.Context, maxAge time.Duration) ([]store.ServerInfo, error)
	Ping(ctx context.Context) error
}

// Notifier tells servers that something changed; with messages handed over they need not read what. Its methods do not block;
// what they say may get lost.
type Notifier interface {
	Notify(address string, ids ...identity.ClientID)
	HandOver(address string, handovers ...*store.Handover)
	NotifyBroadcasts(addresses []string)
	NotifyBlacklisted(address string, id identity.ClientID)
}
