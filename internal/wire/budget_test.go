package wire_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/farspeak/farspeak/internal/wire"
)

func mustAcquire(t *testing.T, b *wire.Budget, n int) {
	t.Helper()
	if err := b.Acquire(n); err != nil {
		t.Fatalf("Acquire(%d): %v", n, err)
	}
}

func TestBudgetCounts(t *testing.T) {
	b := wire.NewBudget(100)
	mustAcquire(t, b, 60)
	mustAcquire(t, b, 40)
	mustAcquire(t, b, 0)
	mustAcquire(t, b, -5)
	if b.Used() != 100 {
		t.Errorf("%d in use, want 100", b.Used())
	}
	b.Release(30)
	b.Release(-1)
	if b.Used() != 70 {
		t.Errorf("%d in use, want 70", b.Used())
	}
	b.Release(math.MaxInt)
	if b.Used() != 0 {
		t.Errorf("%d in use after too much was released, want 0", b.Used())
	}
}

func TestBudgetRefusesTheImpossibleAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		for _, n := range []int{101, math.MaxInt} {
			if err := wire.NewBudget(100).Acquire(n); !errors.Is(err, wire.ErrBudget) {
				t.Errorf("Acquire(%d): %v", n, err)
			}
		}
		if err := wire.NewBudget(-1).Acquire(1); !errors.Is(err, wire.ErrBudget) {
			t.Errorf("negative budget: %v", err)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("waited for %v", waited)
		}
	})
}

func TestBudgetWaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := wire.NewBudget(100)
		mustAcquire(t, b, 90)
		start := time.Now()
		if err := b.Acquire(11); !errors.Is(err, wire.ErrBudget) {
			t.Errorf("error %v, want ErrBudget", err)
		}
		if waited := time.Since(start); waited != wire.BudgetWait {
			t.Errorf("waited for %v, want %v", waited, wire.BudgetWait)
		}
		mustAcquire(t, b, 10) // the one that gave up took nothing
	})
}

func TestBudgetServesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := wire.NewBudget(100)
		mustAcquire(t, b, 100)
		served := make(chan int, 3)
		for i, n := range []int{80, 30, 1} { // the 1 would fit before the 80
			go func() {
				if err := b.Acquire(n); err != nil {
					t.Error(err)
				}
				served <- i
			}()
			synctest.Wait()
		}
		b.Release(50)
		synctest.Wait()
		if len(served) != 0 {
			t.Errorf("%d came before the first", <-served)
		}
		b.Release(30)
		if first := <-served; first != 0 {
			t.Errorf("%d came first", first)
		}
		b.Release(100)
		<-served
		<-served
	})
}

// Who gives up lets those behind pass.
func TestBudgetGivingUpWakesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := wire.NewBudget(100)
		mustAcquire(t, b, 50)
		first := make(chan error, 1)
		go func() { first <- b.Acquire(60) }()
		synctest.Wait()
		time.Sleep(wire.BudgetWait / 2)
		start := time.Now()
		mustAcquire(t, b, 50)
		if waited := time.Since(start); waited != wire.BudgetWait/2 {
			t.Errorf("the second waited for %v, want %v", waited, wire.BudgetWait/2)
		}
		if err := <-first; !errors.Is(err, wire.ErrBudget) {
			t.Errorf("the first: %v", err)
		}
	})
}

func TestNilBudgetHasNoLimit(t *testing.T) {
	var b *wire.Budget
	mustAcquire(t, b, math.MaxInt)
	b.Release(1)
	if b.Used() != 0 {
		t.Errorf("%d in use", b.Used())
	}
}

func TestBudgetConcurrently(t *testing.T) {
	const limit = 1000
	b := wire.NewBudget(limit)
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for range 300 {
				n := rand.IntN(limit) + 1
				if err := b.Acquire(n); err != nil {
					t.Error(err)
					return
				}
				if used := b.Used(); used > limit || used < int64(n) {
					t.Errorf("%d in use of %d", used, limit)
				}
				b.Release(n)
			}
		})
	}
	workers.Wait()
	if b.Used() != 0 {
		t.Errorf("%d in use at the end", b.Used())
	}
}
