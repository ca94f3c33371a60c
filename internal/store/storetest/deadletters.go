package storetest

import (
	"errors"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

var deadLetterTests = []test{
	{name: "RecordServiceResults_G13", run: testServiceResults},
	{name: "HostileResults", run: testHostileResults},
	{name: "Retry", run: testRetryDead},
	{name: "Delete", run: testDeleteDead},
	{name: "Services", run: testDeadServices},
}

func failed(m store.BacklogMessage, reason string) store.ServiceResult {
	return store.ServiceResult{ID: m.ID, Message: m.Message, Service: m.Service, Failed: true, Reason: reason}
}

func testServiceResults(f *fixture) { // G-13: the payload of what fails for good is kept
	good, bad, light := forService("a"), forService("a"), forService("a")
	results := []store.ServiceResult{
		{ID: good.ID, Message: good.Message, Service: "a"}, failed(bad, "no"), {ID: light.ID, Service: "a", Failed: true, Reason: "no payload"},
	}
	for range 2 {
		f.must(f.s.RecordServiceResults(f.ctx, results))
	}
	f.must(f.s.RecordServiceResults(f.ctx, []store.ServiceResult{failed(good, "late"), {ID: bad.ID, Message: bad.Message, Service: "a"}}))
	if got := f.status(good.ID); got.Result.Failed || !proto.Equal(got.Creation, good.Message.CreationTime) {
		f.Errorf("status %+v, want the first result", got)
	}
	if got := f.status(bad.ID).Result; !got.Failed || got.Reason != "no" {
		f.Errorf("result %+v, want the first", got)
	}
	if got := f.status(light.ID); !got.Result.Failed || got.Creation != nil {
		f.Errorf("status %+v of one without its message", got)
	}
	for _, wantData := range []bool{true, false} {
		dead, err := f.s.ListDeadLetters(f.ctx, "a", identity.MessageID{}, 10, wantData)
		f.must(err)
		var letter store.DeadLetter
		for _, d := range dead {
			if d.ID == bad.ID {
				letter = d
			}
		}
		want := proto.CloneOf(bad.Message)
		if !wantData {
			want.Data = nil
		}
		if letter.Reason != "no" || !proto.Equal(letter.Message, want) || letter.Service != "a" || letter.Attempts != 1 {
			f.Errorf("dead letter %+v, want %v", letter, want)
		}
	}
	f.must(f.s.RecordServiceResults(f.ctx, nil))
}

func testHostileResults(f *fixture) {
	long, big := forService(strings.Repeat("日", 5000)), forService("a")
	big.Message.Data.Value = make([]byte, store.MaxMessageBytes+1)
	f.must(f.s.RecordServiceResults(f.ctx, []store.ServiceResult{
		failed(long, strings.Repeat("\xff", 1<<20)), failed(big, "too large"),
	}))
	for _, m := range []store.BacklogMessage{long, big} {
		if got := f.status(m.ID).Result; got == nil || !got.Failed {
			f.Errorf("result %+v", got)
		}
	}
	dead, err := f.s.ListDeadLetters(f.ctx, strings.Repeat("日", store.MaxName), identity.MessageID{}, 10, false)
	if err != nil || len(dead) != 1 {
		f.Errorf("%d dead letters under the cut name, %v", len(dead), err)
	}
}

// bury makes dead letters of a service.
func (f *fixture) bury(list []store.BacklogMessage) {
	f.Helper()
	var results []store.ServiceResult
	for _, m := range list {
		results = append(results, failed(m, "no"))
	}
	f.must(f.s.RecordServiceResults(f.ctx, results))
}

func (f *fixture) dead(service string) (ids []identity.MessageID) {
	f.Helper()
	var after identity.MessageID
	for {
		page, err := f.s.ListDeadLetters(f.ctx, service, after, 2, false)
		f.must(err)
		if len(page) == 0 {
			return ids
		}
		for _, d := range page {
			ids = append(ids, d.ID)
		}
		after = page[len(page)-1].ID
	}
}

func testRetryDead(f *fixture) {
	list := backlogOf(5, "a")
	f.bury(list)
	f.bury(backlogOf(1, "b"))
	if got := f.dead("a"); len(got) != 5 {
		f.Fatalf("pages give %d dead letters, want 5", len(got))
	}
	n, err := f.s.RetryDeadLetters(f.ctx, "a", []identity.MessageID{list[0].ID, list[1].ID, list[0].ID, identity.NewMessageID()})
	if err != nil || n != 2 {
		f.Errorf("retried %d, %v; want 2", n, err)
	}
	claimed := f.claim("s", 10, "a")
	if len(claimed) != 2 || claimed[0].Attempts != 0 || !proto.Equal(claimed[0].Message, list[0].Message) && !proto.Equal(claimed[0].Message, list[1].Message) {
		f.Errorf("claimed %+v, want the two that are retried, due now", claimed)
	}
	if got := f.status(list[0].ID); got.Result != nil {
		f.Errorf("result %+v of one that is tried again", got.Result)
	}
	if got := f.dead("a"); len(got) != 3 {
		f.Errorf("%d dead letters left, want 3", len(got))
	}
	for _, tc := range []struct {
		service string
		ids     []identity.MessageID
	}{{"a", nil}, {"b", []identity.MessageID{list[2].ID}}, {"none", []identity.MessageID{list[2].ID}}} {
		if n, err := f.s.RetryDeadLetters(f.ctx, tc.service, tc.ids); err != nil || n != 0 {
			f.Errorf("service %s: retried %d, %v", tc.service, n, err)
		}
	}
}

func testDeleteDead(f *fixture) {
	list := backlogOf(3, "a")
	f.bury(list)
	n, err := f.s.DeleteDeadLetters(f.ctx, "a", []identity.MessageID{list[1].ID, identity.NewMessageID()})
	if err != nil || n != 1 || len(f.dead("a")) != 2 {
		f.Errorf("deleted %d, %v", n, err)
	}
	if got := f.status(list[1].ID).Result; got == nil || !got.Failed {
		f.Errorf("result %+v, want it to stay", got)
	}
	if _, err := f.s.MessageStatus(f.ctx, identity.NewMessageID()); !errors.Is(err, store.ErrNotFound) {
		f.Error(err)
	}
}

func testDeadServices(f *fixture) {
	services, err := f.s.DeadLetterServices(f.ctx)
	f.must(err)
	if len(services) != 0 {
		f.Errorf("services %q without dead letters", services)
	}
	for _, service := range []string{"b", "a", "b", "B"} {
		f.must(f.s.RecordServiceResults(f.ctx, []store.ServiceResult{failed(forService(service), "no")}))
	}
	services, err = f.s.DeadLetterServices(f.ctx)
	f.must(err)
	if want := []string{"B", "a", "b"}; !slices.Equal(services, want) {
		f.Errorf("services %q, want %q", services, want)
	}
}
