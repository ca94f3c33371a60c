// Package retention removes old rows from the store, in small batches and all the time, so that no table grows for ever
// and no removal is large (G-22).
//
// Every fs-server and fs-admin runs a Job. They need not know of each other: a batch takes the oldest rows that are too
// old, and two jobs that meet find less each. Jitter keeps them apart.
package retention

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/golang/glog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/farspeak/farspeak/internal/store"
)

// Defaults of Config.
const (
	DefaultInterval  = time.Minute
	DefaultBatchSize = 500
)

const (
	// batchTimeout bounds one batch.
	batchTimeout = 30 * time.Second
	// batchPause is the longest pause between two batches, so that the store has room for those that somebody waits for.
	batchPause = 50 * time.Millisecond
)

// Store removes one batch; see store.Retention for the ages.
type Store interface {
	Prune(ctx context.Context, keep store.Retention, limit int) (deleted int64, err error)
}

// Config describes a Job. Store is needed.
type Config struct {
	Store     Store
	Retention store.Retention
	// Interval is the mean time between two runs. Default one minute.
	Interval time.Duration
	// BatchSize is about how many rows of a table one transaction removes. Default 500.
	BatchSize int
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
}

// Job removes old rows.
type Job struct {
	cfg     Config
	deleted prometheus.Counter
	failed  prometheus.Counter
	last    prometheus.Gauge
}

// New makes a Job.
func New(cfg Config) *Job {
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.BatchSize <= 0 {
		cfg.BatchSize = DefaultBatchSize
	}
	f := promauto.With(cfg.Registerer)
	return &Job{
		cfg: cfg,
		deleted: f.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_retention_deleted_rows_total",
			Help: "Rows removed because of their age.",
		}),
		failed: f.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_retention_failed_runs_total",
			Help: "Retention runs that ended with an error.",
		}),
		last: f.NewGauge(prometheus.GaugeOpts{
			Name: "farspeak_retention_last_success_timestamp_seconds",
			Help: "When a retention run last found nothing more to remove.",
		}),
	}
}

// Run runs until ctx ends, and returns nil then. A run that fails is logged, and tried again at the next one's time.
func (j *Job) Run(ctx context.Context) error {
	for pause(ctx, j.cfg.Interval/2+rand.N(j.cfg.Interval)) {
		if _, err := j.RunOnce(ctx); err != nil && ctx.Err() == nil {
			glog.Warning(err)
		}
	}
	return nil
}

// RunOnce removes everything that is too old now, batch by batch, and returns how many rows.
func (j *Job) RunOnce(ctx context.Context) (deleted int64, err error) {
	for {
		n, err := j.batch(ctx)
		deleted += n
		j.deleted.Add(float64(n))
		if err != nil {
			j.failed.Inc()
			return deleted, fmt.Errorf("retention: after %d rows: %w", deleted, err)
		}
		if n == 0 {
			j.last.SetToCurrentTime()
			return deleted, nil
		}
		if !pause(ctx, rand.N(batchPause)) {
			return deleted, fmt.Errorf("retention: after %d rows: %w", deleted, ctx.Err())
		}
	}
}

func (j *Job) batch(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	return j.cfg.Store.Prune(ctx, j.cfg.Retention, j.cfg.BatchSize)
}

// pause waits and says whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
