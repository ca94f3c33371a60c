package batch_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/farspeak/farspeak/internal/batch"
)

// patience of the tests; fake time, in a bubble.
const patience = 100 * time.Millisecond

// While runs are quick, several workers make the same batches as one.
func TestWorkersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{takes: patience / 2}
		b := newBatcher(t, batch.Config[int, int]{Run: r.run, Workers: 3, Patience: patience})
		var callers sync.WaitGroup
		for n := range 6 {
			callers.Go(func() { _, _ = b.Do(t.Context(), n) })
			synctest.Wait()
		}
		callers.Wait()
		if want := [][]int{{0}, {1, 2, 3, 4, 5}}; !equalBatches(r.batches, want) {
			t.Errorf("batches %v, want %v", r.batches, want)
		}
	})
}

// A run that hangs holds the others up for no longer than their patience, and its worker goes on after it.
func TestAnotherWorkerHelpsARunThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		run := func(_ context.Context, items []int) ([]int, error) {
			if slices.Contains(items, 0) {
				<-hang
			}
			return items, nil
		}
		b := newBatcher(t, batch.Config[int, int]{Run: run, Workers: 2, Patience: patience})
		var first sync.WaitGroup
		first.Go(func() { _, _ = b.Do(t.Context(), 0) })
		synctest.Wait()
		start := time.Now()
		for n := 1; n <= 10; n++ {
			if _, err := b.Do(t.Context(), n); err != nil {
				t.Fatal(err)
			}
		}
		if waited := time.Since(start); waited != patience {
			t.Errorf("the others waited %v, want %v", waited, patience)
		}
		close(hang)
		first.Wait()
		if got, err := b.Do(t.Context(), 11); err != nil || got != 11 {
			t.Errorf("after it: %d, %v", got, err)
		}
	})
}

// What was too large for a run does not wait for the worker that waits for more.
func TestWhatIsLeftOverNeedsNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{takes: patience / 2}
		b := newBatcher(t, batch.Config[int, int]{
			Run: r.run, Workers: 2, Patience: patience, MaxBytes: 10, Size: func(n int) int { return n },
		})
		var callers sync.WaitGroup
		for _, n := range []int{1, 6, 7} {
			callers.Go(func() { _, _ = b.Do(t.Context(), n) })
			synctest.Wait()
		}
		callers.Wait() // the bubble is deadlocked if one of them is never run
		if want := [][]int{{1}, {6}, {7}}; !equalBatches(r.batches, want) {
			t.Errorf("batches %v, want %v", r.batches, want)
		}
	})
}
