package services

import (
	"context"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

// Store is what this package needs of a store; internal/store says what each method promises.
type Store interface {
	backlogStore
	resultStore
	clientStore
	reportStore
}

// backlogStore keeps messages whose processing waits for a retry.
type backlogStore interface {
	AddBacklog(ctx context.Context, messages []store.BacklogMessage, dueIn time.Duration, max uint64) ([]error, error)
	ClaimBacklog(ctx context.Context, owner string, services []string, limit int, lease time.Duration) ([]store.BacklogMessage, error)
	FinishBacklog(ctx context.Context, owner string, outcomes []store.BacklogOutcome) error
	ReleaseBacklog(ctx context.Context, owner string) error
	BacklogStatus(ctx context.Context) ([]store.BacklogStatus, error)
	FailUnserved(ctx context.Context, service string, age time.Duration, reason string, limit int) (int64, error)
}

// resultStore keeps outcomes and, for failures, dead letters.
type resultStore interface {
	RecordServiceResults(ctx context.Context, results []store.ServiceResult) error
}

// clientStore knows the senders.
type clientStore interface {
	GetClients(ctx context.Context, ids []identity.ClientID) (map[identity.ClientID]*store.Client, error)
	SetClientInfo(ctx context.Context, infos []store.ClientInfo) ([]error, error)
}

// reportStore takes what the system service of a client reports.
type reportStore interface {
	AckMessages(ctx context.Context, acks []store.Ack) ([]error, error)
	AddResourceUsage(ctx context.Context, records []store.ResourceUsage) ([]error, error)
}
