// Package sqlbase is the store on database/sql: everything that MySQL and SQLite share, which is all but opening a
// connection, the few spellings in Dialect, and what a driver's errors mean. The packages mysql and sqlite make a Store.
//
// Each file holds one aggregate, its statements as constants at the top, each with the index that it uses. Statements are
// templates in the notation of Dialect. Hot statements name rows by single-column IN lists, on an index that the
// statement forces: MariaDB plans row constructors, and lists over small tables, as scans that lock everything.
//
// All times in columns are microseconds of the store's clock, except those that clients give. Locks are taken in the
// order broadcasts, clients, labels and services, contacts, messages, results, backlog, dead letters, and within a table
// in the order of the index.
//
// A Store logs nothing, and none of its goroutines outlives the call that started it.
package sqlbase

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Defaults and bounds.
const (
	// DefaultMaxFetchBytes bounds the payload that one call of DueMessages or ClaimBacklog returns.
	DefaultMaxFetchBytes = 16 << 20
	// maxList bounds an IN list.
	maxList = 500
	// maxRows bounds the rows of one INSERT, maxStatement their bytes; one larger row goes alone.
	maxRows      = 500
	maxStatement = 4 << 20
)

// Config is what an implementation hands to New.
type Config struct {
	Dialect *Dialect
	// Transactions runs transactions, Writer single statements that change something, and Reader those that do not. A nil
	// Transactions means that Writer runs both. Store.Close closes all of them; they may be the same.
	Writer, Reader, Transactions *sql.DB
	// MaxPendingPerClient bounds the messages that wait for one client; 0 means no bound. It is checked approximately.
	MaxPendingPerClient uint64
	// MaxFetchBytes bounds the payload of one fetch; 0 means DefaultMaxFetchBytes.
	MaxFetchBytes int
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
}

// Store is the storage tier on an SQL database. Its methods are safe for concurrent use.
type Store struct {
	cfg       Config
	dialect   *Dialect
	metrics   *metrics
	templates sync.Map // template to expanded statement

	sequence sequence     // order of messages to clients
	queues   queueDepths  // of clients, for MaxPendingPerClient
	backlog  backlogDepth // for the bound of AddBacklog
}

// New returns a Store on open databases.
func New(cfg Config) (*Store, error) {
	if cfg.Dialect == nil || cfg.Writer == nil || cfg.Reader == nil {
		return nil, errors.New("store: dialect, writer and reader are needed")
	}
	if cfg.Transactions == nil {
		cfg.Transactions = cfg.Writer
	}
	if cfg.MaxFetchBytes <= 0 {
		cfg.MaxFetchBytes = DefaultMaxFetchBytes
	}
	return &Store{cfg: cfg, dialect: cfg.Dialect, metrics: newMetrics(cfg)}, nil
}

// Ping asks the database for an answer.
func (s *Store) Ping(ctx context.Context) (err error) {
	defer s.op("Ping", &err)()
	return s.read().query(ctx, "SELECT 1", nil, func(row) error { return nil })
}

// Stats returns the state of the connection pool for transactions.
func (s *Store) Stats() sql.DBStats { return s.cfg.Transactions.Stats() }

// Close closes the connections. Calls under way are waited for by the drivers, not by Close.
func (s *Store) Close() error {
	// Closing one that is closed already does nothing.
	return errors.Join(s.cfg.Reader.Close(), s.cfg.Transactions.Close(), s.cfg.Writer.Close())
}
