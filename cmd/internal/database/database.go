// Package database opens the store that the configuration chooses. It is the one place that knows both implementations.
package database

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/farspeak/farspeak/internal/config"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/mysql"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	"github.com/farspeak/farspeak/internal/store/sqlite"
)

// Options are what a daemon adds to the configured store.
type Options struct {
	// MaxPendingPerClient bounds the messages that wait for one client; 0 means no bound.
	MaxPendingPerClient uint64
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
}

// Open connects to the configured database. It does not look at the schema of MySQL; SQLite brings its own up to date.
func Open(ctx context.Context, cfg config.Store, options Options) (*sqlbase.Store, error) {
	if cfg.Dialect == config.MySQL {
		return mysql.Open(ctx, mysql.Config{
			DSN: cfg.DSN.Reveal(), MaxOpenConns: cfg.MaxOpenConnections,
			MaxPendingPerClient: options.MaxPendingPerClient, Registerer: options.Registerer,
		})
	}
	return sqlite.Open(ctx, sqlite.Config{
		Path: cfg.Path, MaxPendingPerClient: options.MaxPendingPerClient, Registerer: options.Registerer,
	})
}

// OpenChecked opens the database for a daemon, which goes on only when the schema is the one it knows.
func OpenChecked(ctx context.Context, cfg config.Store, options Options) (*sqlbase.Store, error) {
	opened, err := Open(ctx, cfg, options)
	if err != nil {
		return nil, err
	}
	if err := opened.CheckSchema(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("store: %w", err), opened.Close())
	}
	return opened, nil
}

// Retention maps the configured ages and bounds onto those of the store. What has no setting keeps its default. Keeping
// everything also keeps the broadcasts; servers that are gone and old ticket keys are nothing to look at later, and go.
func Retention(cfg config.Retention) store.Retention {
	ages := store.DefaultRetention()
	ages.Contacts, ages.Results = cfg.Contacts, cfg.Results
	ages.DeadLetters, ages.ResourceUsage = cfg.DeadLetters, cfg.ResourceUsage
	ages.MaxDeadLetters, ages.MaxDeadLetterBytes = int64(cfg.MaxDeadLetters), int64(cfg.MaxDeadLetterBytes)
	if cfg == (config.Retention{}) {
		ages.Broadcasts = 0
	}
	return ages
}
