// Package retention removes old rows from the store: in small batches, so that nobody waits behind a long delete, and from
// every daemon, so that it needs no leader. What one daemon has removed the others do not find any more.
package retention

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/golang/glog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/farspeak/farspeak/internal/store"
)

const (
	// interval is the time between two rounds; each daemon varies it by a half either way, so that they take turns.
	interval = 5 * time.Minute
	// batchSize is how many rows of a table go in one transaction.
	batchSize = 1000
	// breath is the pause between two batches of a round, for everybody else's sake.
	breath = 50 * time.Millisecond
	// batchTimeout bounds one batch.
	batchTimeout = time.Minute
)

// Store is what the job needs of a store.
type Store interface {
	Prune(ctx context.Context, keep store.Retention, limit int) (deleted int64, err error)
}

// Config is what a Job is made of. Store is needed.
type Config struct {
	Store     Store
	Retention store.Retention
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
}

// Job removes old rows for as long as it runs.
type Job struct {
	cfg     Config
	removed prometheus.Counter
	failed  prometheus.Counter
}

// New makes a Job.
func New(cfg Config) *Job {
	factory := promauto.With(cfg.Registerer)
	return &Job{
		cfg: cfg,
		removed: factory.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_retention_rows_removed_total", Help: "Rows that this daemon removed because of their age.",
		}),
		failed: factory.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_retention_failures_total", Help: "Rounds of removing old rows that a store error ended early.",
		}),
	}
}

// Run removes old rows until ctx ends. Trouble with the store ends a round, not the job. Without any age it still removes
// what nothing refers to any more, such as the chunks of a file that was replaced.
func (j *Job) Run(ctx context.Context) error {
	for pause(ctx, interval/2+rand.N(interval)) {
		if _, err := j.RunOnce(ctx); err != nil && ctx.Err() == nil {
			j.failed.Inc()
			glog.Warningf("removing old rows: %v", err)
		}
	}
	return nil
}

// RunOnce does one round: it removes everything that is too old, and returns how many rows that were.
func (j *Job) RunOnce(ctx context.Context) (removed int64, err error) {
	for {
		n, err := j.removeBatch(ctx)
		removed += n
		if err != nil || n == 0 {
			return removed, err
		}
		if !pause(ctx, breath) {
			return removed, ctx.Err()
		}
	}
}

func (j *Job) removeBatch(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, batchTimeout, errors.New("a batch took too long"))
	defer cancel()
	n, err := j.cfg.Store.Prune(ctx, j.cfg.Retention, batchSize)
	j.removed.Add(float64(n))
	return n, err
}

// pause waits for d; false means that ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
