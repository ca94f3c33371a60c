package wire_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/farspeak/farspeak/internal/wire"
)

// shared is a budget of which a holder may have three quarters, 192 MiB.
func shared() (b *wire.Budget, greedy, other *wire.Share) {
	b = wire.NewBudget(256 << 20)
	return b, b.Share(wire.Holder{1}), b.Share(wire.Holder{2})
}

func mustTake(t *testing.T, m wire.Memory, mebibytes int) {
	t.Helper()
	if err := m.Acquire(mebibytes << 20); err != nil {
		t.Fatalf("Acquire(%d MiB): %v", mebibytes, err)
	}
}

// Nobody takes all of a budget, and who has its share holds up itself only (G-03).
func TestShareLeavesRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, greedy, other := shared()
		mustTake(t, greedy, 190)
		refused := make(chan error, 1)
		go func() { refused <- greedy.Acquire(3 << 20) }()
		synctest.Wait()
		start := time.Now()
		mustTake(t, other, 60)
		if waited := time.Since(start); waited != 0 {
			t.Errorf("the other one waited for %v", waited)
		}
		if err := <-refused; !errors.Is(err, wire.ErrBudget) {
			t.Errorf("the greedy one: %v", err)
		}
		greedy.Release(190 << 20)
		other.Release(60 << 20)
		if b.Used() != 0 {
			t.Errorf("%d bytes in use", b.Used())
		}
	})
}

// What a holder releases goes to whoever of its own waited longest, as far as all have room.
func TestShareServesItsOwnInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, greedy, other := shared()
		mustTake(t, greedy, 192)
		served := make(chan int, 2)
		for i, mebibytes := range []int{30, 1} {
			go func() {
				mustTake(t, greedy, mebibytes)
				served <- i
			}()
			synctest.Wait()
		}
		greedy.Release(20 << 20)
		synctest.Wait()
		if len(served) != 0 {
			t.Errorf("%d came before the first", <-served)
		}
		mustTake(t, other, 80)
		greedy.Release(20 << 20) // of its share 152 are used, and of all 232
		synctest.Wait()
		if len(served) != 0 {
			t.Errorf("%d got what nobody has", <-served)
		}
		other.Release(80 << 20)
		synctest.Wait()
		if len(served) != 2 {
			t.Errorf("%d were served, want both", len(served))
		}
	})
}

// Who gives up, in either queue, lets those behind pass.
func TestShareGivingUpWakesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, mebibytes := range []int{60, 150} { // too much for all, too much for the share
			b, greedy, other := shared()
			mustTake(t, greedy, 100)
			mustTake(t, other, 100)
			first := make(chan error, 1)
			go func() { first <- greedy.Acquire(mebibytes << 20) }()
			synctest.Wait()
			time.Sleep(wire.BudgetWait / 2)
			mustTake(t, greedy, 50)
			if err := <-first; !errors.Is(err, wire.ErrBudget) {
				t.Errorf("the first: %v", err)
			}
			if want := int64(250 << 20); b.Used() != want {
				t.Errorf("%d bytes in use, want %d", b.Used(), want)
			}
		}
	})
}

// The largest record has room in the share of its holder, whatever the budget.
func TestShareHasRoomForTheLargestRecord(t *testing.T) {
	for _, limit := range []int64{2 * wire.MaxClientRecord, 48 << 20, 1 << 30} {
		if err := wire.NewBudget(limit).Share(wire.Holder{}).Acquire(2 * wire.MaxClientRecord); err != nil {
			t.Errorf("of %d bytes: %v", limit, err)
		}
	}
	if err := wire.NewBudget(256 << 20).Share(wire.Holder{}).Acquire(193 << 20); !errors.Is(err, wire.ErrBudget) {
		t.Errorf("more than a share: %v", err)
	}
}

func TestSharesConcurrently(t *testing.T) {
	const limit = 64 << 20
	b := wire.NewBudget(limit)
	var workers sync.WaitGroup
	for i := range 16 {
		share := b.Share(wire.Holder{byte(i % 4)})
		workers.Go(func() {
			for range 300 {
				n := rand.IntN(2*wire.MaxClientRecord) + 1
				if err := share.Acquire(n); err != nil {
					t.Error(err)
					return
				}
				if used := b.Used(); used > limit || used < int64(n) {
					t.Errorf("%d in use of %d", used, limit)
				}
				share.Release(n)
			}
		})
	}
	workers.Wait()
	if b.Used() != 0 {
		t.Errorf("%d in use at the end", b.Used())
	}
}

func TestShareOfNilBudgetHasNoLimit(t *testing.T) {
	var b *wire.Budget
	share := b.Share(wire.Holder{})
	mustTake(t, share, 1<<30)
	share.Release(1)
	if b.Used() != 0 {
		t.Errorf("%d in use", b.Used())
	}
}
