package storetest

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

var backlogTests = []test{
	{name: "AddClaimFinish", run: testBacklog},
	{name: "Duplicates", run: testBacklogDuplicates},
	{name: "OutcomesOfAdd", run: testBacklogInvalid},
	{name: "ClaimsAreExclusive_G36", run: testClaimRace},
	{name: "ClaimDiesWithItsHolder_G36", run: testClaimExpires},
	{name: "ReleaseBacklog", run: testRelease},
	{name: "RetryLater_G36", run: testRetryLater},
	{name: "ServicesInTurn", run: testClaimInTurn},
	{name: "ClaimedBytesAreBounded", run: testClaimBytes, options: Options{MaxFetchBytes: 50_000}},
	{name: "Full", run: testBacklogFull},
	{name: "Status", run: testBacklogStatus},
}

// forService makes a message from a client to a service.
func forService(service string) store.BacklogMessage {
	m := message(identity.ClientID{}, service)
	m.Source = &fspb.Address{ClientId: identity.NewClientID().Bytes(), ServiceName: "agent"}
	return store.BacklogMessage{ID: idOf(m), Service: service, Message: m, Attempts: 1}
}

func backlogOf(n int, service string) []store.BacklogMessage {
	list := make([]store.BacklogMessage, n)
	for i := range list {
		list[i] = forService(service)
	}
	return list
}

func (f *fixture) backlog(list ...store.BacklogMessage) {
	f.Helper()
	f.allNil(f.s.AddBacklog(f.ctx, list, 0, 0))
}

func (f *fixture) claim(owner string, limit int, services ...string) []store.BacklogMessage {
	f.Helper()
	claimed, err := f.s.ClaimBacklog(f.ctx, owner, services, limit, time.Hour)
	f.must(err)
	return claimed
}

func claimedIDs(list []store.BacklogMessage) []identity.MessageID {
	ids := make([]identity.MessageID, len(list))
	for i, m := range list {
		ids[i] = m.ID
	}
	slices.SortFunc(ids, func(a, b identity.MessageID) int { return slices.Compare(a[:], b[:]) })
	return ids
}

func testBacklog(f *fixture) {
	list := backlogOf(4, "FRR")
	list[1].Message.Data = nil
	f.backlog(list...)
	claimed := f.claim("s1", 10, "FRR", "other")
	if !slices.Equal(claimedIDs(claimed), claimedIDs(list)) {
		f.Fatalf("claimed %d messages, want 4", len(claimed))
	}
	for _, m := range claimed {
		want := list[slices.IndexFunc(list, func(w store.BacklogMessage) bool { return w.ID == m.ID })]
		if !proto.Equal(m.Message, want.Message) || m.Service != "FRR" || m.Attempts != 1 {
			f.Errorf("claimed %+v, want %+v", m, want)
		}
	}
	for _, m := range list {
		if got := f.status(m.ID); got.Result != nil || !proto.Equal(got.Creation, m.Message.CreationTime) {
			f.Errorf("status while in the backlog: %+v", got)
		}
	}
	f.must(f.s.FinishBacklog(f.ctx, "s1", []store.BacklogOutcome{
		{Service: "FRR", ID: list[0].ID, Done: true},
		{Service: "FRR", ID: list[1].ID, Done: true, Keep: true},
		{Service: "FRR", ID: list[2].ID, Dead: true, Reason: "refused"},
		{Service: "FRR", ID: list[3].ID, RetryIn: time.Hour, Reason: "down"},
		{Service: "FRR", ID: identity.NewMessageID(), Done: true, Keep: true},
	}))
	if _, err := f.s.MessageStatus(f.ctx, list[0].ID); !errors.Is(err, store.ErrNotFound) {
		f.Errorf("status of one that nobody wants to know about: %v", err)
	}
	if got := f.status(list[1].ID).Result; got == nil || got.Failed {
		f.Errorf("result %+v, want success", got)
	}
	if got := f.status(list[2].ID).Result; got == nil || !got.Failed || got.Reason != "refused" {
		f.Errorf("result %+v, want failure", got)
	}
	if f.status(list[3].ID).Result != nil {
		f.Error("one that is to be retried is completed")
	}
	dead, err := f.s.ListDeadLetters(f.ctx, "FRR", identity.MessageID{}, 10, true)
	f.must(err)
	if len(dead) != 1 || dead[0].ID != list[2].ID || dead[0].Reason != "refused" || dead[0].Attempts != 2 ||
		!recent(dead[0].Failed) || !proto.Equal(dead[0].Message, list[2].Message) {
		f.Errorf("dead letters %+v", dead)
	}
	if n := f.db.Count(f, "SELECT COUNT(*) FROM service_backlog"); n != 1 {
		f.Errorf("%d left in the backlog, want the one to be retried", n)
	}
}

func testBacklogDuplicates(f *fixture) {
	pending, done, fresh := forService("a"), forService("a"), forService("a")
	f.backlog(pending, done)
	f.claim("s", 10, "a")
	f.must(f.s.FinishBacklog(f.ctx, "s", []store.BacklogOutcome{
		{Service: "a", ID: done.ID, Dead: true, Reason: "no"}, {Service: "a", ID: pending.ID},
	}))
	again := pending
	again.Attempts = 9
	f.backlog(fresh, again, done, fresh)
	claimed := f.claim("s", 10, "a")
	if !slices.Equal(claimedIDs(claimed), claimedIDs([]store.BacklogMessage{pending, fresh})) {
		f.Errorf("claimed %d messages, want the pending one and the new one", len(claimed))
	}
	for _, m := range claimed {
		if m.Attempts > 2 {
			f.Errorf("a repeat changed the stored message: %+v", m)
		}
	}
	f.allNil(f.s.AddBacklog(f.ctx, nil, 0, 0))
}

func testBacklogInvalid(f *fixture) {
	big := forService("a")
	big.Message.Data.Value = make([]byte, store.MaxMessageBytes+1)
	errs, err := f.s.AddBacklog(f.ctx, []store.BacklogMessage{
		forService("a"), forService(""), forService(strings.Repeat("x", store.MaxName+1)), big, forService(strings.Repeat("é", store.MaxName)),
	}, 0, 0)
	f.must(err)
	for i, err := range errs {
		if want := i > 0 && i < 4; errors.Is(err, store.ErrInvalid) != want {
			f.Errorf("message %d: %v", i, err)
		}
	}
}

func testClaimRace(f *fixture) { // G-36
	const total = 300
	f.backlog(backlogOf(total, "a")...)
	var mu sync.Mutex
	owners := make(map[identity.MessageID]int)
	f.race(1, func(_ int, s *sqlbase.Store, number int) {
		var workers sync.WaitGroup
		for range 3 {
			workers.Go(func() {
				for {
					claimed, err := s.ClaimBacklog(f.ctx, "owner", []string{"a"}, 10, time.Hour)
					if err != nil {
						f.Error(err)
						return
					}
					if len(claimed) == 0 {
						return
					}
					mu.Lock()
					for _, m := range claimed {
						owners[m.ID]++
					}
					mu.Unlock()
				}
			})
		}
		workers.Wait()
	})
	for _, m := range f.claim("last", 500, "a") { // what the workers lost to each other's haste
		owners[m.ID]++
	}
	for id, n := range owners {
		if n != 1 {
			f.Errorf("message %v was claimed %d times", id, n)
		}
	}
	if len(owners) != total {
		f.Errorf("%d messages claimed, want %d", len(owners), total)
	}
}

func testClaimExpires(f *fixture) { // G-36
	m := forService("a")
	f.backlog(m)
	if claimed := f.claim("dead", 10, "a"); len(claimed) != 1 {
		f.Fatalf("claimed %d", len(claimed))
	}
	if claimed := f.claim("alive", 10, "a"); len(claimed) != 0 {
		f.Fatal("claimed what another holds")
	}
	f.db.Exec(f, "UPDATE service_backlog SET due_us = due_us - 3600000000") // an hour passes
	claimed := f.claim("alive", 10, "a")
	if len(claimed) != 1 || claimed[0].Attempts != 2 {
		f.Fatalf("claimed %+v, want the message of the holder that died, after two attempts", claimed)
	}
	// The holder was not dead after all. What it says counts no more.
	f.must(f.s.FinishBacklog(f.ctx, "dead", []store.BacklogOutcome{{Service: "a", ID: m.ID, Dead: true, Reason: "late"}}))
	if got := f.status(m.ID); got.Result != nil {
		f.Errorf("result %+v of one whose claim is another's", got.Result)
	}
	f.must(f.s.FinishBacklog(f.ctx, "alive", []store.BacklogOutcome{{Service: "a", ID: m.ID, Done: true, Keep: true}}))
	if got := f.status(m.ID).Result; got == nil || got.Failed {
		f.Errorf("result %+v, want success", got)
	}
}

func testRelease(f *fixture) {
	f.backlog(backlogOf(5, "a")...)
	mine, others := f.claim("mine", 3, "a"), f.claim("others", 2, "a")
	f.must(f.s.ReleaseBacklog(f.ctx, "mine"))
	if got := f.claim("next", 10, "a"); !slices.Equal(claimedIDs(got), claimedIDs(mine)) {
		f.Errorf("%d messages after the release, want the %d that were released, not the %d of another", len(got), len(mine), len(others))
	}
	f.must(f.s.ReleaseBacklog(f.ctx, "nobody"))
}

func testRetryLater(f *fixture) { // G-36
	list := backlogOf(3, "a")
	f.backlog(list...)
	f.claim("s", 10, "a")
	f.must(f.s.FinishBacklog(f.ctx, "s", []store.BacklogOutcome{
		{Service: "a", ID: list[0].ID, RetryIn: -time.Second}, {Service: "a", ID: list[1].ID, RetryIn: time.Minute},
		{Service: "a", ID: list[2].ID, RetryIn: 2 * time.Minute},
	}))
	for i, want := range []int64{1, 1, 1} {
		if got := f.claim("s", 10, "a"); int64(len(got)) != want || got[0].ID != list[i].ID || got[0].Attempts != 2 {
			f.Fatalf("after %d minutes: %+v, want message %d", i, got, i)
		}
		f.db.Exec(f, "UPDATE service_backlog SET due_us = due_us - 60000000")
	}
	f.allNil(f.s.AddBacklog(f.ctx, []store.BacklogMessage{forService("later")}, time.Minute, 0))
	if got := f.claim("s", 10, "later"); len(got) != 0 {
		f.Error("a message is due before its time")
	}
}

func testClaimInTurn(f *fixture) {
	f.backlog(backlogOf(50, "busy")...)
	f.backlog(backlogOf(3, "quiet")...)
	f.backlog(backlogOf(3, "not asked for")...)
	count := make(map[string]int)
	for _, m := range f.claim("s", 10, "quiet", "busy", "quiet", "none") {
		count[m.Service]++
	}
	if count["quiet"] != 3 || count["busy"] != 7 || len(count) != 2 {
		f.Errorf("claimed %v, want all of the quiet service and the rest of the busy one", count)
	}
	for _, services := range [][]string{nil, {"none"}} {
		if got := f.claim("s", 10, services...); len(got) != 0 {
			f.Errorf("claimed %d of services %v", len(got), services)
		}
	}
	if got := f.claim("s", 0, "busy"); len(got) != 0 {
		f.Errorf("claimed %d with limit 0", len(got))
	}
}

func testClaimBytes(f *fixture) {
	list := backlogOf(5, "a")
	for i := range list {
		list[i].Message.Data.Value = make([]byte, 20_000)
	}
	list[0].Message.Data.Value = make([]byte, 200_000)
	f.backlog(list...)
	total := 0
	for range len(list) {
		claimed := f.claim("s", 10, "a")
		if len(claimed) == 0 || len(claimed) > 2 {
			f.Errorf("claimed %d, want one or two", len(claimed))
		}
		if total += len(claimed); total == len(list) {
			return
		}
	}
	f.Errorf("%d of %d messages could be claimed", total, len(list))
}

func testBacklogFull(f *fixture) {
	list := backlogOf(10, "a")
	f.allNil(f.s.AddBacklog(f.ctx, list, 0, 10))
	errs, err := f.s.AddBacklog(f.ctx, []store.BacklogMessage{forService("a"), list[0], forService("")}, 0, 10)
	f.must(err)
	if !errors.Is(errs[0], store.ErrQueueFull) || errs[1] != nil || !errors.Is(errs[2], store.ErrInvalid) {
		f.Errorf("errors %v, want the new one refused and the repeat taken", errs)
	}
	f.claim("s", 5, "a")
	var done []store.BacklogOutcome
	for _, m := range list {
		done = append(done, store.BacklogOutcome{Service: "a", ID: m.ID, Done: true})
	}
	f.must(f.s.FinishBacklog(f.ctx, "s", done))
	f.allNil(f.s.AddBacklog(f.ctx, backlogOf(5, "a"), 0, 10))
	f.allNil(f.s.AddBacklog(f.ctx, backlogOf(1, "a"), 0, 0))
}

func testBacklogStatus(f *fixture) {
	if got, err := f.s.BacklogStatus(f.ctx); err != nil || len(got) != 0 {
		f.Errorf("empty: %v, %v", got, err)
	}
	f.backlog(backlogOf(3, "a")...)
	f.db.Exec(f, "UPDATE service_backlog SET created_us = created_us - 60000000")
	f.backlog(backlogOf(2, "b")...)
	f.claim("s", 2, "a")
	got, err := f.s.BacklogStatus(f.ctx)
	f.must(err)
	if len(got) != 2 || got[0].Service != "a" || got[0].Depth != 3 || got[0].Oldest < time.Minute || got[0].Oldest > 2*time.Minute ||
		got[1].Service != "b" || got[1].Depth != 2 || got[1].Oldest > time.Minute || got[1].Bytes < 200 || got[0].Bytes < got[1].Bytes {
		f.Errorf("status %+v", got)
	}
}
