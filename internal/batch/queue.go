package batch

import "sync"

// queue is what waits for a run: bounded, in order, and no larger in memory than what is in it. The buffer of a channel
// would be allocated for the full bound, which is chosen for the worst minute of a server and not for its life.
//
// Two channels of empty structs, which take no memory whatever their capacity, do the waiting: one for room, one for items.
type queue[E any] struct {
	room  chan struct{} // holds one for each item
	ready chan struct{} // the same, sent after the item is in place; closed when no more come

	// Guarded by mu. Items are appended to in and taken from out; when out is used up they change places.
	mu      sync.Mutex
	in, out []E
	next    int // in out
	keep    int // how many items a slice may have room for and be used again
}

func newQueue[E any](bound, keep int) *queue[E] {
	return &queue[E]{room: make(chan struct{}, bound), ready: make(chan struct{}, bound), keep: keep}
}

// len is how many items wait.
func (q *queue[E]) len() int { return len(q.ready) }

// put adds an item. The caller has sent to room before.
func (q *queue[E]) put(e E) {
	q.mu.Lock()
	q.in = append(q.in, e)
	q.mu.Unlock()
	q.ready <- struct{}{} // as many as in room, so this never waits
}

// close says that no more items come. Those that wait can still be taken.
func (q *queue[E]) close() { close(q.ready) }

// take waits for an item and returns it; false says that there is none left and none to come.
func (q *queue[E]) take() (e E, ok bool) {
	if _, ok = <-q.ready; !ok {
		return e, false
	}
	return q.pop(), true
}

// tryTake is take that does not wait.
func (q *queue[E]) tryTake() (e E, ok bool) {
	select {
	case _, ok = <-q.ready:
	default:
	}
	if !ok {
		return e, false
	}
	return q.pop(), true
}

// pop removes the first item, of which there is one.
func (q *queue[E]) pop() E {
	q.mu.Lock()
	if q.next == len(q.out) {
		q.in, q.out, q.next = q.out[:0], q.in, 0
	}
	var none E
	e := q.out[q.next]
	q.out[q.next] = none // keeps nothing alive
	q.next++
	if q.next == len(q.out) && cap(q.out) > q.keep {
		q.out, q.next = nil, 0
	}
	q.mu.Unlock()
	<-q.room
	return e
}
