package agent

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/wire"
)

// orderedWindow is how many records may be under way to a server that acknowledges in order.
const orderedWindow = 8

// flights are the records of a session that were sent and not yet released.
//
// The original acknowledges out of order, and skips a record that failed: that some number came says nothing about the
// record of that number. Only the complete set of all numbers sent so far proves that every record was processed. So
// records are released when the set is complete, and to make that happen under load one record at a time is under way
// (G-06). A server that promises ordered acknowledgements gets a window, and each record is released by its number.
type flights struct {
	overdue func() // called when nothing was acknowledged for ackTimeout
	measure func(bytes int, took time.Duration)
	signal  chan struct{} // holds a token when something changed for the writer

	mu      sync.Mutex
	waiting []*flight // in the order of their indexes
	next    uint64    // index of the next record
	ordered bool
	leaving bool // no more records are to be sent
	closed  bool // and our side is done
	timer   *time.Timer
}

// flight is one record.
type flight struct {
	index uint64
	batch *batch // nil for a record without messages
	size  int
	sent  time.Time
	acked bool
}

func newFlights(overdue func(), measure func(int, time.Duration)) *flights {
	return &flights{overdue: overdue, measure: measure, signal: make(chan struct{}, 1)}
}

// launch notes a record that is about to be sent. The first one is record 0.
func (f *flights) launch(b *batch, size int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = append(f.waiting, &flight{index: f.next, batch: b, size: size, sent: time.Now()})
	f.next++
	f.watchLocked()
}

// watchLocked has the timer run while, and only while, a record waits.
func (f *flights) watchLocked() {
	switch {
	case len(f.waiting) == 0:
		if f.timer != nil {
			f.timer.Stop()
			f.timer = nil
		}
	case f.timer == nil:
		f.timer = time.AfterFunc(ackTimeout, f.overdue)
	}
}

// establish releases record 0: the server's first record is its acknowledgement.
func (f *flights) establish(ordered bool) {
	f.mu.Lock()
	f.ordered = ordered
	released := f.popLocked(1)
	f.mu.Unlock()
	f.release(released)
}

// acknowledge takes an acknowledgement of the server; 0 is none. A number that was never sent breaks the protocol, one that
// came before does not matter.
func (f *flights) acknowledge(index uint64) error {
	if index == 0 {
		return nil
	}
	f.mu.Lock()
	if index >= f.next {
		defer f.mu.Unlock()
		return fmt.Errorf("%w: acknowledgement of record %d, the last one sent is %d", wire.ErrProtocol, index, f.next-1)
	}
	for _, w := range f.waiting {
		w.acked = w.acked || w.index == index
	}
	released := f.popLocked(f.releasableLocked())
	f.mu.Unlock()
	f.release(released)
	return nil
}

// releasableLocked counts the records that are proven to be processed.
func (f *flights) releasableLocked() int {
	unproven := slices.IndexFunc(f.waiting, func(w *flight) bool { return !w.acked })
	switch {
	case unproven < 0:
		return len(f.waiting)
	case f.ordered:
		return unproven
	}
	return 0
}

func (f *flights) popLocked(n int) []*flight {
	released := f.waiting[:n:n]
	f.waiting = f.waiting[n:]
	if n > 0 {
		f.watchLocked()
		if f.timer != nil {
			f.timer.Reset(ackTimeout)
		}
	}
	return released
}

func (f *flights) release(released []*flight) {
	for _, w := range released {
		if w.batch != nil {
			w.batch.accept()
		}
		f.measure(w.size, time.Since(w.sent))
	}
	f.wake()
}

func (f *flights) wake() {
	select {
	case f.signal <- struct{}{}:
	default:
	}
}

// room reports whether another record may be sent.
func (f *flights) room() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	window := 1
	if f.ordered {
		window = orderedWindow
	}
	return !f.leaving && len(f.waiting) < window
}

// leave ends the sending of records.
func (f *flights) leave() {
	f.mu.Lock()
	f.leaving = true
	f.mu.Unlock()
	f.wake()
}

// close notes that our side is done, if it is: the agent is leaving and all records are acknowledged.
func (f *flights) close() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = f.leaving && len(f.waiting) == 0
	return f.closed
}

// finished reports whether the session ended in order on our side.
func (f *flights) finished() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// oldest returns the size of the first unacknowledged record and how long it has been under way; zeros when there is none.
func (f *flights) oldest() (size int, underWay time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.waiting) == 0 {
		return 0, 0
	}
	return f.waiting[0].size, time.Since(f.waiting[0].sent)
}

// end gives the messages of unacknowledged records back. If the server ended things, it may have been over the first of
// these: suspect tells.
func (f *flights) end(suspect bool) {
	f.mu.Lock()
	left := f.waiting
	f.waiting = nil
	f.watchLocked()
	f.mu.Unlock()
	for _, w := range left {
		switch {
		case w.batch == nil:
		case suspect:
			w.batch.blame()
			suspect = false
		default:
			w.batch.giveBack()
		}
	}
}
