package retention_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/farspeak/farspeak/internal/retention"
	"github.com/farspeak/farspeak/internal/store"
)

// fakeStore holds rows that are too old.
type fakeStore struct {
	rows  int64
	fail  error
	keeps []store.Retention
	at    []time.Time // of the batches
}

func (f *fakeStore) Prune(ctx context.Context, keep store.Retention, limit int) (int64, error) {
	f.keeps = append(f.keeps, keep)
	f.at = append(f.at, time.Now())
	if f.fail != nil {
		return 0, f.fail
	}
	if _, ok := ctx.Deadline(); !ok {
		return 0, errors.New("a batch without a deadline")
	}
	n := min(f.rows, int64(limit))
	f.rows -= n
	return n, nil
}

func TestRunOnceGoesOnUntilNothingIsLeft(t *testing.T) { // G-22
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{rows: 1050}
		keep := store.Retention{Contacts: time.Hour}
		registry := prometheus.NewRegistry()
		j := retention.New(retention.Config{Store: f, Retention: keep, BatchSize: 100, Registerer: registry})
		n, err := j.RunOnce(t.Context())
		if n != 1050 || err != nil {
			t.Errorf("%d rows, %v", n, err)
		}
		if want := slices.Repeat([]store.Retention{keep}, 12); !slices.Equal(f.keeps, want) {
			t.Errorf("%d batches, want 12 with the ages given", len(f.keeps))
		}
		if got := metric(t, registry, "farspeak_retention_deleted_rows_total"); got != 1050 {
			t.Errorf("%v rows counted", got)
		}
	})
}

func metric(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.Metric[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestRunOnceStopsAtAnError(t *testing.T) {
	f := &fakeStore{fail: store.ErrUnavailable}
	registry := prometheus.NewRegistry()
	_, err := retention.New(retention.Config{Store: f, Registerer: registry}).RunOnce(t.Context())
	if !errors.Is(err, store.ErrUnavailable) || len(f.at) != 1 {
		t.Errorf("%v after %d batches", err, len(f.at))
	}
	if got := metric(t, registry, "farspeak_retention_failed_runs_total"); got != 1 {
		t.Errorf("%v failures counted", got)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v, %v", problems, err)
	}
}

// Runs go on after a failure, at times that spread.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{fail: store.ErrUnavailable}
		j := retention.New(retention.Config{Store: f, Interval: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := j.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
		if len(f.at) < 35 || len(f.at) > 120 {
			t.Errorf("%d runs in an hour, want about 60", len(f.at))
		}
		for i := 1; i < len(f.at); i++ {
			if gap := f.at[i].Sub(f.at[i-1]); gap < 30*time.Second || gap > 90*time.Second {
				t.Errorf("%v between two runs", gap)
			}
		}
	})
}

// A stop does not wait for all that could be removed.
func TestRunOnceEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{rows: 1 << 40}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := retention.New(retention.Config{Store: f}).RunOnce(ctx)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}
