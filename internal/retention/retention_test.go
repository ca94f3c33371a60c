package retention_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/farspeak/farspeak/internal/retention"
	"github.com/farspeak/farspeak/internal/store"
)

// pile stands for a store with old rows.
type pile struct {
	mu    sync.Mutex
	rows  int64
	calls int
	fail  error
	keep  store.Retention
}

func (p *pile) Prune(_ context.Context, keep store.Retention, limit int) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	p.keep = keep
	if p.fail != nil {
		return 0, p.fail
	}
	n := min(p.rows, int64(limit))
	p.rows -= n
	return n, nil
}

// A round removes everything that is too old, in bounded batches (G-22).
func TestRoundRemovesAllInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pile{rows: 2500}
		job := retention.New(retention.Config{Store: p, Retention: store.DefaultRetention(), Registerer: prometheus.NewRegistry()})
		removed, err := job.RunOnce(t.Context())
		if removed != 2500 || err != nil || p.calls != 4 {
			t.Errorf("removed %d rows in %d calls, %v; want 2500 in 4", removed, p.calls, err)
		}
	})
}

// The job goes on after the store failed, and ends with its context.
func TestRunSurvivesStoreErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pile{rows: 10, fail: errors.New("away")}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- retention.New(retention.Config{Store: p, Retention: store.DefaultRetention()}).Run(ctx)
		}()
		time.Sleep(time.Hour) // of the test's own clock
		p.mu.Lock()
		p.fail = nil
		p.mu.Unlock()
		time.Sleep(time.Hour)
		cancel()
		if err := <-done; err != nil || p.rows != 0 {
			t.Errorf("%d rows left, %v", p.rows, err)
		}
	})
}

// Keeping everything passes no ages to the store, which then removes only what nothing refers to.
func TestKeepForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pile{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := retention.New(retention.Config{Store: p}).Run(ctx); err != nil {
			t.Fatal(err)
		}
		if p.calls == 0 || p.keep != (store.Retention{}) {
			t.Errorf("%d calls with %+v, want some without ages", p.calls, p.keep)
		}
	})
}
