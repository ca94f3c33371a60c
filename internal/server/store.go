package server

import (
	"context"
	"io"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/services"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Store is what the server needs of a store; internal/store says what each method promises.
type Store interface {
	clientStore
	messageStore
	broadcastStore
	fileStore
	serverStore
	ticketStore
}

// clientStore authenticates clients and records their contacts.
type clientStore interface {
	GetClients(ctx context.Context, ids []identity.ClientID) (map[identity.ClientID]*store.Client, error)
	RecordContacts(ctx context.Context, updates []store.ContactUpdate) ([]store.ContactOutcome, error)
	EndSessions(ctx context.Context, ends []store.SessionEnd) error
}

// messageStore hands out messages to clients.
type messageStore interface {
	InsertMessages(ctx context.Context, messages []*fspb.Message) ([]store.InsertOutcome, error)
	DueMessages(ctx context.Context, requests []store.DueRequest) (map[identity.ClientID]*store.DueMessages, error)
	RecordAttempts(ctx context.Context, refs []store.MessageRef, redeliverAfter time.Duration) error
	ReturnMessages(ctx context.Context, refs []store.MessageRef, redeliverAfter time.Duration) error
	UndoAttempts(ctx context.Context, refs []store.MessageRef) error
	CompleteMessages(ctx context.Context, refs []store.MessageRef) error
	DueClients(ctx context.Context, after int64, limit int) (ids []identity.ClientID, upTo int64, err error)
}

// broadcastStore lists active broadcasts and assigns them to clients.
type broadcastStore interface {
	ActiveBroadcasts(ctx context.Context) ([]*store.Broadcast, error)
	AssignBroadcast(ctx context.Context, id identity.BroadcastID, clients []identity.ClientID,
		instance func(identity.ClientID) *fspb.Message, redeliverAfter time.Duration) ([]*store.PendingMessage, error)
}

// fileStore reads files for clients.
type fileStore interface {
	OpenFile(ctx context.Context, service, name string) (StoredFile, error)
}

// StoredFile reads one stored file chunk by chunk.
type StoredFile interface {
	io.ReadSeekCloser
	Info() store.File
}

// serverStore announces this server to the others.
type serverStore interface {
	Heartbeat(ctx context.Context, info store.ServerInfo) (time.Time, error)
	ListServers(ctx context.Context, maxAge time.Duration) ([]store.ServerInfo, error)
	RemoveServer(ctx context.Context, id string) error
}

// ticketStore shares the keys of TLS session tickets between servers, the newest first.
type ticketStore interface {
	TicketKeys(ctx context.Context, limit int) ([]store.TicketKey, error)
	AddTicketKey(ctx context.Context, key store.TicketKey) error
}

// Ingester takes the messages of one record of a client. It returns nil only when each of them was taken by its service
// or is durable in the store; then, and only then, the record may be acknowledged.
type Ingester interface {
	Ingest(ctx context.Context, batch services.Batch) error
}
