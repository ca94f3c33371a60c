package batch_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/farspeak/farspeak/internal/batch"
)

// recorder is a Run that remembers its batches and takes its time (fake time, in a bubble).
type recorder struct {
	mu      sync.Mutex
	batches [][]int
	takes   time.Duration
	fail    func(items []int) error
}

func (r *recorder) run(ctx context.Context, items []int) ([]int, error) {
	if r.takes > 0 {
		select {
		case <-time.After(r.takes):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches = append(r.batches, slices.Clone(items))
	if r.fail != nil {
		if err := r.fail(items); err != nil {
			return nil, err
		}
	}
	results := make([]int, len(items))
	for i, n := range items {
		results[i] = 10 * n
	}
	return results, nil
}

func newBatcher(t *testing.T, cfg batch.Config[int, int]) *batch.Batcher[int, int] {
	t.Helper()
	cfg.Name = "test"
	b, err := batch.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close(context.Background()) })
	return b
}

func TestFirstItemDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{takes: time.Millisecond}
		b := newBatcher(t, batch.Config[int, int]{Run: r.run})
		start := time.Now()
		got, err := b.Do(t.Context(), 7)
		if err != nil || got != 70 {
			t.Fatalf("Do = %d, %v; want 70", got, err)
		}
		if took := time.Since(start); took != time.Millisecond {
			t.Errorf("an idle batcher took %v, want the 1ms of the run itself", took)
		}
	})
}

func TestWhatArrivesDuringARunFormsTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{takes: time.Second}
		b := newBatcher(t, batch.Config[int, int]{Run: r.run})
		var callers sync.WaitGroup
		for n := range 6 {
			callers.Go(func() {
				if got, err := b.Do(t.Context(), n); err != nil || got != 10*n {
					t.Errorf("Do(%d) = %d, %v", n, got, err)
				}
			})
			synctest.Wait() // each is queued before the next; the first is running
		}
		callers.Wait()
		if want := [][]int{{0}, {1, 2, 3, 4, 5}}; !equalBatches(r.batches, want) {
			t.Errorf("batches %v, want %v", r.batches, want)
		}
	})
}

func TestBounds(t *testing.T) {
	for _, tc := range []struct {
		name               string
		maxItems, maxBytes int
		items              []int // each weighs its value
		want               [][]int
	}{
		{"items", 2, 0, []int{1, 2, 3, 4, 5}, [][]int{{1}, {2, 3}, {4, 5}}},
		{"bytes", 10, 10, []int{1, 6, 4, 1}, [][]int{{1}, {6, 4}, {1}}},
		{"an item over the bound runs alone", 10, 10, []int{1, 2, 50, 3, 4}, [][]int{{1}, {2}, {50}, {3, 4}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{takes: time.Second}
				b := newBatcher(t, batch.Config[int, int]{
					Run: r.run, MaxItems: tc.maxItems, MaxBytes: tc.maxBytes, Size: func(n int) int { return n },
				})
				for _, n := range tc.items {
					if err := b.DoAsync(n, nil); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				}
				if err := b.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				if !equalBatches(r.batches, tc.want) {
					t.Errorf("batches %v, want %v", r.batches, tc.want)
				}
			})
		})
	}
}

func TestPoisonItemFailsAlone(t *testing.T) { // G-16
	synctest.Test(t, func(t *testing.T) {
		poison := errors.New("poison")
		r := &recorder{takes: time.Second, fail: func(items []int) error {
			if slices.Contains(items, 5) {
				return poison
			}
			return nil
		}}
		b := newBatcher(t, batch.Config[int, int]{Run: r.run})
		var callers sync.WaitGroup
		for n := range 9 {
			callers.Go(func() {
				_, err := b.Do(t.Context(), n)
				if got := errors.Is(err, poison); got != (n == 5) {
					t.Errorf("item %d: error %v", n, err)
				}
			})
		}
		callers.Wait()
	})
}

func TestSplitDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("database down")
		r := &recorder{takes: time.Second, fail: func([]int) error { return down }}
		b := newBatcher(t, batch.Config[int, int]{
			Run: r.run, Split: func(err error) bool { return !errors.Is(err, down) },
		})
		var callers sync.WaitGroup
		for n := range 9 {
			callers.Go(func() {
				if _, err := b.Do(t.Context(), n); !errors.Is(err, down) {
					t.Errorf("item %d: error %v, want %v", n, err, down)
				}
			})
			synctest.Wait()
		}
		callers.Wait()
		if len(r.batches) != 2 {
			t.Errorf("%d runs, want 2: an outage must not multiply the work", len(r.batches))
		}
	})
}

func TestFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{takes: time.Minute}
		reg := prometheus.NewRegistry()
		b := newBatcher(t, batch.Config[int, int]{Run: r.run, Queue: 2, Timeout: time.Hour, Registerer: reg})
		for n := range 3 { // one runs, two wait
			if err := b.DoAsync(n, nil); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if err := b.DoAsync(3, nil); !errors.Is(err, batch.ErrFull) {
			t.Errorf("DoAsync = %v, want ErrFull", err)
		}
		if _, err := b.TryDo(t.Context(), 3); !errors.Is(err, batch.ErrFull) {
			t.Errorf("TryDo = %v, want ErrFull", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.Do(ctx, 3); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Do = %v, want the deadline", err)
		}
		if got, err := b.Do(t.Context(), 4); err != nil || got != 40 {
			t.Errorf("Do that may wait = %d, %v", got, err)
		}
		if n := testutil.CollectAndCount(reg, "farspeak_batch_items", "farspeak_batch_wait_seconds",
			"farspeak_batch_queued_items", "farspeak_batch_refused_total"); n != 4 {
			t.Errorf("%d metrics, want 4", n)
		}
	})
}

func TestCallerThatLeftIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{takes: time.Minute}
		b := newBatcher(t, batch.Config[int, int]{Run: r.run, Timeout: time.Hour})
		if err := b.DoAsync(1, nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the first is running
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.Do(ctx, 2); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Do = %v", err)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want := [][]int{{1}}; !equalBatches(r.batches, want) {
			t.Errorf("batches %v, want %v", r.batches, want)
		}
	})
}

func TestPanicIsAnError(t *testing.T) {
	b := newBatcher(t, batch.Config[int, int]{Run: func(_ context.Context, items []int) ([]int, error) {
		if items[0] == 1 {
			panic("boom")
		}
		return items, nil
	}})
	_, err := b.Do(t.Context(), 1)
	if p, ok := errors.AsType[*batch.PanicError](err); !ok || p.Value != "boom" || len(p.Stack) == 0 {
		t.Errorf("error %v, want a PanicError", err)
	}
	called := make(chan struct{})
	if err := b.DoAsync(2, func(int, error) { close(called); panic("in the callback") }); err != nil {
		t.Fatal(err)
	}
	<-called
	if got, err := b.Do(t.Context(), 3); err != nil || got != 3 {
		t.Errorf("after panics Do = %d, %v; the worker must live on", got, err)
	}
}

func TestWrongNumberOfResults(t *testing.T) {
	b := newBatcher(t, batch.Config[int, int]{Run: func(context.Context, []int) ([]int, error) { return nil, nil }})
	if _, err := b.Do(t.Context(), 1); err == nil {
		t.Error("a run without results was taken for a success")
	}
}

func TestCloseFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{takes: time.Second}
		b := newBatcher(t, batch.Config[int, int]{Run: r.run, MaxItems: 3})
		answered := 0
		for n := range 10 {
			if err := b.DoAsync(n, func(_ int, err error) {
				if err == nil {
					answered++ // by the one worker
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if answered != 10 {
			t.Errorf("%d of 10 items done when Close returned", answered)
		}
		if _, err := b.Do(t.Context(), 1); !errors.Is(err, batch.ErrClosed) {
			t.Errorf("Do after Close = %v, want ErrClosed", err)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
}

func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{takes: time.Hour}
		b := newBatcher(t, batch.Config[int, int]{Run: r.run, Timeout: 2 * time.Hour})
		failed := 0
		for n := range 4 {
			if err := b.DoAsync(n, func(_ int, err error) {
				if errors.Is(err, context.Canceled) {
					failed++
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close = %v, want the deadline", err)
		}
		if failed != 4 {
			t.Errorf("%d of 4 items told that they failed", failed)
		}
	})
}

func TestCloseSendsAwayThoseWhoWaitForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{takes: time.Second}
		b := newBatcher(t, batch.Config[int, int]{Run: r.run, Queue: 1})
		for n := range 2 {
			if err := b.DoAsync(n, nil); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		var callers sync.WaitGroup
		callers.Go(func() {
			if _, err := b.Do(t.Context(), 3); !errors.Is(err, batch.ErrClosed) {
				t.Errorf("Do = %v, want ErrClosed", err)
			}
		})
		synctest.Wait()
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		callers.Wait()
	})
}

func TestTimeoutOfARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{takes: time.Hour}
		b := newBatcher(t, batch.Config[int, int]{Run: r.run, Timeout: time.Minute})
		if _, err := b.Do(t.Context(), 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Do = %v, want the run's deadline", err)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	run := (&recorder{}).run
	for name, cfg := range map[string]batch.Config[int, int]{
		"no name":           {Run: run},
		"no run":            {Name: "x"},
		"bytes and no size": {Name: "x", Run: run, MaxBytes: 1},
	} {
		if _, err := batch.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestManyCallersAndClose(t *testing.T) {
	var mu sync.Mutex
	seen := map[int]int{}
	b := newBatcher(t, batch.Config[int, int]{
		Workers: 3, MaxItems: 7, Queue: 16,
		Run: func(_ context.Context, items []int) ([]int, error) {
			mu.Lock()
			defer mu.Unlock()
			for _, n := range items {
				seen[n]++
			}
			return items, nil
		},
	})
	var callers sync.WaitGroup
	done := make([]bool, 2000)
	for n := range done {
		callers.Go(func() {
			_, err := b.Do(t.Context(), n)
			if err != nil && !errors.Is(err, batch.ErrClosed) {
				t.Errorf("Do(%d) = %v", n, err)
			}
			done[n] = err == nil
		})
		if n == len(done)/2 {
			callers.Go(func() { b.Close(context.Background()) })
		}
	}
	callers.Wait()
	for n, ok := range done {
		if want := map[bool]int{true: 1}[ok]; seen[n] != want {
			t.Errorf("item %d ran %d times, want %d", n, seen[n], want)
		}
	}
}

func equalBatches(a, b [][]int) bool {
	return slices.EqualFunc(a, b, func(x, y []int) bool { return slices.Equal(x, y) })
}

func BenchmarkDo(b *testing.B) {
	bt, err := batch.New(batch.Config[int, int]{
		Name: "bench",
		Run:  func(_ context.Context, items []int) ([]int, error) { return items, nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	defer bt.Close(context.Background())
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := bt.Do(context.Background(), 1); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
