package server

import (
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

func pendingMessages(count, size int) []*store.PendingMessage {
	messages := make([]*store.PendingMessage, count)
	for i := range messages {
		messages[i] = &store.PendingMessage{ID: identity.NewMessageID(), Service: "S", Encoded: make([]byte, size)}
	}
	return messages
}

func TestLedgerIsBounded(t *testing.T) {
	for _, tc := range []struct {
		name        string
		count, size int
		want        bool
	}{
		{"as many as fit", maxLedger, 1, true},
		{"one too many", maxLedger + 1, 1, false},
		{"as large as fits", 1, maxLedgerBytes, true},
		{"too large", 1, maxLedgerBytes + 1, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var l ledger
			if got := l.add(pendingMessages(tc.count, tc.size)); got != tc.want || (len(l.entries) > 0) != tc.want {
				t.Errorf("added %v, %d entries; want %v", got, len(l.entries), tc.want)
			}
		})
	}
}

// A Die is complete when it is written, and waits for no acknowledgement (G-13).
func TestLedgerTakesNoDie(t *testing.T) {
	var l ledger
	die := &store.PendingMessage{ID: identity.NewMessageID(), Service: systemService, Type: "Die"}
	if !l.add([]*store.PendingMessage{die}) || len(l.entries) != 0 {
		t.Errorf("%d entries, want none", len(l.entries))
	}
}

// What was acknowledged before its writing had ended, and what could not be written, does not stay.
func TestLedgerSettles(t *testing.T) {
	var l ledger
	messages := pendingMessages(3, 10)
	l.add(messages)
	out := handoutOf(messages[:2])
	l.remove(func(e *entry) bool { return e.id == messages[0].ID })
	if removed := l.settle(out.attempts, time.Now()); removed != 1 {
		t.Errorf("%d removed, want the one that was not written", removed)
	}
	if len(l.entries) != 1 || l.entries[0].id != messages[1].ID || l.bytes != 10 {
		t.Errorf("left %+v of %d bytes, want the one that was written and not acknowledged", l.entries, l.bytes)
	}
}

func TestLedgerRecords(t *testing.T) {
	var l ledger
	old, young, writing := pendingMessages(1, 1), pendingMessages(1, 1), pendingMessages(1, 1)
	start := time.Now()
	l.add(old)
	l.settle(handoutOf(old).attempts, start)
	l.add(young)
	l.settle(handoutOf(young).attempts, start.Add(time.Second))
	l.add(writing)
	for _, done := range []bool{false, true} { // a failure leaves it for the next time
		if got := l.record(start.Add(time.Millisecond)); len(got) != 1 || got[0] != old[0].ID {
			t.Fatalf("recording %v, want the old one", got)
		}
		if got := l.recorded(done); (got == 1) != done {
			t.Errorf("%d removed after success %v", got, done)
		}
	}
	l.record(start.Add(time.Minute))
	if got := l.take(); len(got) != 0 {
		t.Errorf("took %v, which are being recorded or written", got)
	}
	l.recorded(false)
	if got := l.take(); len(got) != 1 || got[0] != young[0].ID || len(l.entries) != 1 {
		t.Errorf("took %v of %d, want the written one", got, len(l.entries)+len(got))
	}
}
