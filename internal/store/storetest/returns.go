package storetest

import (
	"slices"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

var returnTests = []test{
	{name: "FirstTime", run: testReturnFirst},
	{name: "AcrossTheNextSession", run: testReturnLate},
	{name: "NothingToReturn", run: testReturnNothing},
	{name: "NotHandedOut", run: testUndoAttempts},
}

// What a session that ended had for the first time stays due; what was handed out before waits its time.
func testReturnFirst(f *fixture) {
	id := f.client()
	list := messages(3, id, "service")
	f.insert(list...)
	first, again := refsOf(id, idsOf(list[:1])), refsOf(id, idsOf(list[1:2]))
	f.must(f.s.RecordAttempts(f.ctx, again, 0))
	f.must(f.s.ReturnMessages(f.ctx, slices.Concat(first, again), time.Hour))
	due := f.due(id, 10)
	if got, want := dueIDs(due), idsOf(slices.Delete(slices.Clone(list), 1, 2)); !slices.Equal(got, want) {
		f.Errorf("due %v, want %v", got, want)
	}
	if due.Messages[0].Attempts != 1 || due.Messages[1].Attempts != 0 {
		f.Errorf("attempts %d and %d, want the handout counted", due.Messages[0].Attempts, due.Messages[1].Attempts)
	}
	f.must(f.s.ReturnMessages(f.ctx, first, time.Hour))
	if got, want := dueIDs(f.due(id, 10)), idsOf(list[2:]); !slices.Equal(got, want) {
		f.Errorf("due %v, want only what was never handed out", got)
	}
}

// The word of the session that ended may come after the next one began: the message is due for that one all the same.
func testReturnLate(f *fixture) {
	id := f.client()
	list := messages(1, id, "service")
	f.insert(list...)
	f.contact(store.ContactUpdate{ClientID: id, Key: keyOf(id), StreamingTo: "s:1"})
	f.must(f.s.ReturnMessages(f.ctx, refsOf(id, idsOf(list)), time.Hour))
	if got := dueIDs(f.due(id, 10)); !slices.Equal(got, idsOf(list)) {
		f.Errorf("due %v, want the message that came back", got)
	}
}

func testReturnNothing(f *fixture) {
	id := f.client()
	f.must(f.s.ReturnMessages(f.ctx, nil, time.Hour))
	list := messages(1, id, "service")
	f.insert(list...)
	f.allNil(f.s.AckMessages(f.ctx, []store.Ack{ack(id, idOf(list[0]))}))
	f.must(f.s.ReturnMessages(f.ctx, refsOf(id, []identity.MessageID{idOf(list[0]), identity.NewMessageID()}), time.Hour))
	if f.status(idOf(list[0])).Result == nil {
		f.Error("a message that was acknowledged came back")
	}
}

// What counts as handed out once and was not is due again, and as new; what was handed out twice, or is new, stays as it is.
func testUndoAttempts(f *fixture) {
	id := f.client()
	list := messages(3, id, "service")
	f.insert(list...)
	refs := refsOf(id, idsOf(list))
	f.must(f.s.RecordAttempts(f.ctx, refs[:2], time.Hour))
	f.must(f.s.RecordAttempts(f.ctx, refs[1:2], time.Hour))
	f.must(f.s.UndoAttempts(f.ctx, append(refs, store.MessageRef{ClientID: id, ID: identity.NewMessageID()})))
	due := f.due(id, 10)
	if got, want := dueIDs(due), idsOf(slices.Delete(slices.Clone(list), 1, 2)); !slices.Equal(got, want) {
		f.Fatalf("due %v, want %v", got, want)
	}
	if due.Messages[0].Attempts != 0 || due.Messages[1].Attempts != 0 {
		f.Errorf("attempts %d and %d, want none", due.Messages[0].Attempts, due.Messages[1].Attempts)
	}
	f.must(f.s.UndoAttempts(f.ctx, nil))
}
