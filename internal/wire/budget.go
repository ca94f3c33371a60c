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
	share int64 // of one holder

	// Guarded by mu.
	mu       sync.Mutex
	used     int64
	waiting  list.List // of *budgetWaiter, oldest first
	accounts map[Holder]*account
}

var _ Memory = (*Budget)(nil)

type budgetWaiter struct {
	n       int64
	holder  *Holder       // nil: nobody's account
	granted chan struct{} // closed under Budget.mu when n was taken for the waiter

	// Guarded by Budget.mu.
	booked bool          // its account has room: it waits in the budget's queue, else in that of the account
	place  *list.Element // in that queue
}

// NewBudget returns a budget of limit bytes. A growing buffer is paid for beside the one it replaces, so less than twice
// MaxClientRecord has no room for the largest record.
func NewBudget(limit int64) *Budget {
	limit = max(limit, 0)
	return &Budget{limit: limit, share: shareOf(limit), accounts: make(map[Holder]*account)}
}

// Acquire takes n bytes on nobody's account, waiting for up to BudgetWait. More than the whole budget is refused at once.
func (b *Budget) Acquire(n int) error { return b.acquire(nil, n) }

// Release gives n bytes back. Releasing more than was taken leaves the budget empty, not negative.
func (b *Budget) Release(n int) { b.release(nil, n) }

func (b *Budget) acquire(of *Holder, n int) error {
	if b == nil || n <= 0 {
		return nil
	}
	w, err := b.enqueue(of, int64(n))
	if w == nil || err != nil {
		return err
	}
	timer := time.NewTimer(BudgetWait)
	defer timer.Stop()
	select {
	case <-w.granted:
		return nil
	case <-timer.C:
		return b.giveUp(w)
	}
}

// enqueue takes n bytes, or returns who has to wait for them.
func (b *Budget) enqueue(of *Holder, n int64) (*budgetWaiter, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.limit || of != nil && n > b.share {
		return nil, fmt.Errorf("%w: %d bytes wanted of %d in all", ErrBudget, n, b.limit)
	}
	a := b.accountLocked(of)
	if b.fullLocked(a, n) {
		return wait(&a.waiting, &budgetWaiter{n: n, holder: of}), nil
	}
	b.bookLocked(of, n)
	if b.waiting.Len() == 0 && n <= b.limit-b.used {
		b.used += n
		return nil, nil
	}
	return wait(&b.waiting, &budgetWaiter{n: n, holder: of, booked: true}), nil
}

func wait(queue *list.List, w *budgetWaiter) *budgetWaiter {
	w.granted = make(chan struct{})
	w.place = queue.PushBack(w)
	return w
}

// giveUp ends a wait, unless it was granted in the last moment.
func (b *Budget) giveUp(w *budgetWaiter) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.granted:
		return nil
	default:
	}
	b.leaveLocked(w)
	b.grantLocked() // those behind may have been waiting for this one only
	return fmt.Errorf("%w: %d bytes wanted, %d of %d in use", ErrBudget, w.n, b.used, b.limit)
}

// leaveLocked takes a waiter out of the queue that it is in.
func (b *Budget) leaveLocked(w *budgetWaiter) {
	if w.booked {
		b.waiting.Remove(w.place)
		b.bookLocked(w.holder, -w.n)
		return
	}
	b.accounts[*w.holder].waiting.Remove(w.place)
	b.bookLocked(w.holder, 0) // those behind may have been waiting for this one only
}

func (b *Budget) release(of *Holder, n int) {
	if b == nil || n <= 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used = max(b.used-int64(n), 0)
	b.bookLocked(of, -int64(n))
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
