package server

import (
	"slices"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

// Bounds of one session's ledger. While a message is in it each fetch of the session reads the message again, in vain.
const (
	maxLedger      = 32
	maxLedgerBytes = 64 << 10
)

// ledger is what a session handed out that is neither acknowledged nor recorded as an attempt. To the store these messages
// are still due, so the session leaves them out of what it fetches. Most leave by their acknowledgement, within
// milliseconds; then nothing was written about them but that. Guarded by the session's mu.
type ledger struct {
	entries []entry // oldest first; nil when there is none, as in an idle session
	bytes   int

	// before are the messages that were here when the fetch under way began. It may have read them while they were due
	// and return after they left.
	before []identity.MessageID
}

// entry is one message in a ledger.
type entry struct {
	id        identity.MessageID
	size      int
	written   time.Time // zero while it is being written
	recording bool      // its attempt is being recorded
}

// add takes in messages that are about to be written, all of them or, without room, none. A Die has no attempts.
func (l *ledger) add(messages []*store.PendingMessage) bool {
	entries, bytes := l.entries, l.bytes
	for _, m := range messages {
		if !isDie(m) {
			entries = append(entries, entry{id: m.ID, size: len(m.Encoded)})
			bytes += len(m.Encoded)
		}
	}
	if len(entries) > maxLedger || bytes > maxLedgerBytes {
		return false
	}
	l.entries, l.bytes = entries, bytes
	return true
}

// settle ends a writing: out were written, other messages that were about to be were not, and are forgotten.
func (l *ledger) settle(out []store.MessageRef, now time.Time) (removed int) {
	sent := make(map[identity.MessageID]bool, len(out))
	for _, ref := range out {
		sent[ref.ID] = true
	}
	removed = l.remove(func(e *entry) bool { return e.written.IsZero() && !sent[e.id] })
	for i := range l.entries {
		if l.entries[i].written.IsZero() {
			l.entries[i].written = now
		}
	}
	return removed
}

// remove forgets the entries that gone says, and returns how many they were.
func (l *ledger) remove(gone func(*entry) bool) (removed int) {
	if len(l.entries) == 0 {
		return 0
	}
	before := len(l.entries)
	l.entries = slices.DeleteFunc(l.entries, func(e entry) bool {
		if !gone(&e) {
			return false
		}
		l.bytes -= e.size
		return true
	})
	removed = before - len(l.entries)
	if len(l.entries) == 0 {
		l.entries = nil
	}
	return removed
}

// record says that the attempts of what was written before a time are being recorded, and returns which.
func (l *ledger) record(before time.Time) (ids []identity.MessageID) {
	for i := range l.entries {
		e := &l.entries[i]
		if !e.written.IsZero() && e.written.Before(before) {
			e.recording = true
			ids = append(ids, e.id)
		}
	}
	return ids
}

// recorded ends a recording. What could not be recorded stays.
func (l *ledger) recorded(done bool) (removed int) {
	if done {
		return l.remove(func(e *entry) bool { return e.recording })
	}
	for i := range l.entries {
		l.entries[i].recording = false
	}
	return 0
}

// take removes what was written and is not being recorded, and returns it.
func (l *ledger) take() (ids []identity.MessageID) {
	l.remove(func(e *entry) bool {
		free := !e.written.IsZero() && !e.recording
		if free {
			ids = append(ids, e.id)
		}
		return free
	})
	return ids
}

// beginFetch notes what the fetch that begins may read in vain.
func (l *ledger) beginFetch() {
	l.before = nil
	for i := range l.entries {
		l.before = append(l.before, l.entries[i].id)
	}
}

// endFetch leaves out of fetched messages what was in the ledger when the fetch began.
func (l *ledger) endFetch(messages []*store.PendingMessage) (fresh []*store.PendingMessage) {
	before := l.before
	l.before = nil
	if len(before) == 0 {
		return messages
	}
	return slices.DeleteFunc(messages, func(m *store.PendingMessage) bool { return slices.Contains(before, m.ID) })
}
