package wire

import (
	"container/list"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrBudget says that the memory for records in flight is used up. The peer did nothing wrong and may try again later.
var ErrBudget = errors.New("no memory left for records in flight")

// BudgetWait is how long Budget.Acquire waits for others to release. It bounds two things: how long a peer is held back by
// not being read from, and a standstill in which everybody holds a part and waits for more. The one who waited longest
// gives up first, and what it held lets the others go on.
const BudgetWait = 5 * time.Second

// Memory accounts for what records in flight hold.
type Memory interface {
	// Acquire takes n bytes. It may wait for a bounded time. An error, in which ErrBudget is, means that nothing was taken.
	Acquire(n int) error
	// Release gives back what Acquire took.
	Release(n int)
}

// Budget is a Memory that any number of connections share. Who comes first is served first, so that many small requests
// cannot starve a large one. It is safe for concurrent use. A nil Budget has no limit.
type Budget struct {
	limit int64

	// Guarded by mu.
	mu      sync.Mutex
	used    int64
	waiting list.List // of *budgetWaiter, oldest first
}

var _ Memory = (*Budget)(nil)

type budgetWaiter struct {
	n       int64
	granted chan struct{} // closed under Budget.mu when n was taken for the waiter
}

// NewBudget returns a budget of limit bytes. A growing buffer is paid for beside the one it replaces, so less than twice
// MaxClientRecord has no room for the largest record.
func NewBudget(limit int64) *Budget { return &Budget{limit: max(limit, 0)} }

// Acquire takes n bytes, waiting for up to BudgetWait. More than the whole budget is refused at once.
func (b *Budget) Acquire(n int) error {
	if b == nil || n <= 0 {
		return nil
	}
	w, err := b.enqueue(int64(n))
	if w == nil || err != nil {
		return err
	}
	timer := time.NewTimer(BudgetWait)
	defer timer.Stop()
	select {
	case <-w.Value.(*budgetWaiter).granted:
		return nil
	case <-timer.C:
		return b.giveUp(w)
	}
}

// enqueue takes n bytes, or returns the place in the queue at which the caller has to wait for them.
func (b *Budget) enqueue(n int64) (*list.Element, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case n > b.limit:
		return nil, fmt.Errorf("%w: %d bytes wanted of %d in all", ErrBudget, n, b.limit)
	case b.waiting.Len() == 0 && n <= b.limit-b.used:
		b.used += n
		return nil, nil
	}
	return b.waiting.PushBack(&budgetWaiter{n: n, granted: make(chan struct{})}), nil
}

// giveUp ends a wait, unless it was granted in the last moment.
func (b *Budget) giveUp(e *list.Element) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := e.Value.(*budgetWaiter)
	select {
	case <-w.granted:
		return nil
	default:
	}
	b.waiting.Remove(e)
	b.grantLocked() // those behind may have been waiting for this one only
	return fmt.Errorf("%w: %d bytes wanted, %d of %d in use", ErrBudget, w.n, b.used, b.limit)
}

// Release gives n bytes back. Releasing more than was taken leaves the budget empty, not negative.
func (b *Budget) Release(n int) {
	if b == nil || n <= 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used = max(b.used-int64(n), 0)
	b.grantLocked()
}

// grantLocked serves waiters in their order, as far as the budget goes.
func (b *Budget) grantLocked() {
	for e := b.waiting.Front(); e != nil; e = b.waiting.Front() {
		w := e.Value.(*budgetWaiter)
		if w.n > b.limit-b.used {
			return
		}
		b.used += w.n
		b.waiting.Remove(e)
		close(w.granted)
	}
}

// Used is how many bytes are taken, for a gauge.
func (b *Budget) Used() int64 {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}
