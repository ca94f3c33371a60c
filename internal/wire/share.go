package wire

import "container/list"

// Holder names who the memory for a record is taken for: an address or a client, whatever its connections.
type Holder [16]byte

// Share is a Memory that draws from a Budget on account of one holder, so that nobody takes all of it. Who has its share
// waits for itself to release, and holds up nobody else. It is safe for concurrent use.
type Share struct {
	budget *Budget
	holder Holder
}

var _ Memory = (*Share)(nil)

// Share is what b has for a holder: three quarters of it, or what the largest record needs.
func (b *Budget) Share(of Holder) *Share { return &Share{b, of} }

// Acquire takes n bytes, waiting for up to BudgetWait. More than a whole share is refused at once.
func (s *Share) Acquire(n int) error { return s.budget.acquire(&s.holder, n) }

// Release gives n bytes back.
func (s *Share) Release(n int) { s.budget.release(&s.holder, n) }

// account is what one holder has of a budget. There is one while it has something, or waits. Budget.mu guards it.
type account struct {
	used    int64     // what it waits for in the budget's queue included
	waiting list.List // of *budgetWaiter, oldest first: those that its share has no room for
}

// shareOf is how much of a budget one holder may have.
func shareOf(limit int64) int64 {
	return max(limit/4*3, min(limit, 2*MaxClientRecord))
}

// accountLocked finds or opens an account; nobody has none.
func (b *Budget) accountLocked(of *Holder) *account {
	if of == nil {
		return nil
	}
	a := b.accounts[*of]
	if a == nil {
		a = &account{}
		b.accounts[*of] = a
	}
	return a
}

// fullLocked says whether n bytes more have to wait for the holder itself.
func (b *Budget) fullLocked(a *account, n int64) bool {
	return a != nil && (a.waiting.Len() > 0 || a.used+n > b.share)
}

// bookLocked adds n bytes to an account, or takes them off. What the holder waits for moves on to the queue of all, as far
// as its share has room, and an account of nothing is closed.
func (b *Budget) bookLocked(of *Holder, n int64) {
	a := b.accountLocked(of)
	if a == nil {
		return
	}
	a.used = max(a.used+n, 0)
	for e := a.waiting.Front(); e != nil; e = a.waiting.Front() {
		w := e.Value.(*budgetWaiter)
		if a.used+w.n > b.share {
			break
		}
		a.used += w.n
		a.waiting.Remove(e)
		w.booked, w.place = true, b.waiting.PushBack(w)
	}
	if a.used == 0 && a.waiting.Len() == 0 {
		delete(b.accounts, *of)
	}
}
