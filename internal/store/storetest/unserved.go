package storetest

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

var unservedTests = []test{
	{name: "Fail", run: testFailUnserved},
	{name: "SomebodyServes", run: testServed},
	{name: "ServedLongAgo", run: testServedLongAgo},
}

// older makes the backlog due for longer.
func (f *fixture) older(by time.Duration) {
	f.Helper()
	f.db.Exec(f, "UPDATE service_backlog SET due_us = due_us - ?", by.Microseconds())
}

// inserted makes messages to a service as an admin stores them: nobody has tried them.
func inserted(n int, service string) []store.BacklogMessage {
	list := backlogOf(n, service)
	for i := range list {
		list[i].Attempts = 0
	}
	return list
}

func (f *fixture) failUnserved(service string, limit int, want int64) {
	f.Helper()
	if n, err := f.s.FailUnserved(f.ctx, service, time.Hour, "nobody", limit); err != nil || n != want {
		f.Errorf("%d messages to %q failed, %v; want %d", n, service, err, want)
	}
}

func testFailUnserved(f *fixture) {
	old, other, young := inserted(5, "a"), inserted(1, "b"), inserted(1, "a")
	f.backlog(old...)
	f.backlog(other...)
	f.older(2 * time.Hour)
	f.backlog(young...)
	f.failUnserved("a", 3, 3)
	f.failUnserved("a", 3, 2)
	f.failUnserved("a", 3, 0)
	f.failUnserved("nothing", 3, 0)
	dead, err := f.s.ListDeadLetters(f.ctx, "a", identity.MessageID{}, 10, true)
	f.must(err)
	if len(dead) != 5 {
		f.Errorf("%d dead letters, want the 5 old ones", len(dead))
	}
	for _, m := range old {
		if got := f.status(m.ID).Result; got == nil || !got.Failed || got.Reason != "nobody" {
			f.Errorf("result %+v", got)
		}
	}
	for _, d := range dead {
		i := slices.IndexFunc(old, func(m store.BacklogMessage) bool { return m.ID == d.ID })
		if i < 0 || d.Reason != "nobody" || d.Attempts != 0 || !proto.Equal(d.Message, old[i].Message) {
			f.Errorf("dead letter %+v", d)
		}
	}
	if n := f.db.Count(f, "SELECT COUNT(*) FROM service_backlog"); n != 2 {
		f.Errorf("backlog of %d, want the young one and that of the other service", n)
	}
}

func testServed(f *fixture) {
	f.backlog(inserted(3, "a")...)
	f.older(2 * time.Hour)
	claimed, err := f.s.ClaimBacklog(f.ctx, "s", []string{"a"}, 1, time.Minute)
	f.must(err)
	f.failUnserved("a", 10, 0) // a server has one in its hands
	f.must(f.s.FinishBacklog(f.ctx, "s", []store.BacklogOutcome{{Service: "a", ID: claimed[0].ID, RetryIn: time.Minute}}))
	f.failUnserved("a", 10, 0) // it will try again
	f.older(30 * time.Minute)
	f.failUnserved("a", 10, 0) // it tried half an hour ago
}

func testServedLongAgo(f *fixture) {
	f.backlog(inserted(3, "a")...)
	f.claim("crashed", 2, "a")
	f.older(3 * time.Hour) // the claims ended two hours ago
	f.failUnserved("a", 10, 3)
}
