package storetest

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

var ackTests = []test{
	{name: "Ack_G28", run: testAck},
	{name: "UnknownAndForeign_G19", run: testAckForeign},
	{name: "SomeOfManySucceed_G19", run: testAckSome},
	{name: "FirstResultStays", run: testFirstResult},
	{name: "RekeyUnderTheNextID", run: testAckRekey},
	{name: "HostileReasons", run: testAckReasons},
	{name: "ManyAcks", run: testManyAcks},
	{name: "TwoServersAckWhileFetching_GapsH", run: testAckRace},
	{name: "CompleteMessages", run: testComplete},
	{name: "StatusOfUnknown", run: testStatusUnknown},
}

func ack(client identity.ClientID, id identity.MessageID) store.Ack {
	return store.Ack{MessageRef: store.MessageRef{ClientID: client, ID: id}}
}

func failure(client identity.ClientID, id identity.MessageID, reason string) store.Ack {
	return store.Ack{MessageRef: store.MessageRef{ClientID: client, ID: id}, Failed: true, Reason: reason}
}

func testAck(f *fixture) {
	id := f.client()
	list := messages(3, id, "service")
	f.insert(list...)
	f.allNil(f.s.AckMessages(f.ctx, []store.Ack{ack(id, idOf(list[0])), failure(id, idOf(list[1]), "it broke")}))
	good, bad, open := f.status(idOf(list[0])), f.status(idOf(list[1])), f.status(idOf(list[2]))
	if good.Result == nil || good.Result.Failed || !recent(good.Result.Processed) || !proto.Equal(good.Creation, list[0].CreationTime) {
		f.Errorf("status of the acknowledged one: %+v", good)
	}
	// G-28: that it failed, and why, can be asked for.
	if bad.Result == nil || !bad.Result.Failed || bad.Result.Reason != "it broke" {
		f.Errorf("status of the failed one: %+v", bad.Result)
	}
	if open.Result != nil {
		f.Errorf("status of the pending one: %+v", open.Result)
	}
	if got := dueIDs(f.due(id, 10)); !slices.Equal(got, idsOf(list[2:])) {
		f.Errorf("due %v, want only the pending one", got)
	}
}

func testAckForeign(f *fixture) { // G-19
	id, other := f.client(), f.client()
	list := messages(3, id, "service")
	f.insert(list...)
	f.allNil(f.s.AckMessages(f.ctx, []store.Ack{ack(id, idOf(list[0]))}))
	f.db.Exec(f, "DELETE FROM message_results") // pruned
	errs, err := f.s.AckMessages(f.ctx, []store.Ack{
		ack(id, identity.MessageID{}), ack(id, identity.NewMessageID()), ack(id, idOf(list[0])),
		failure(other, idOf(list[1]), "not mine"), ack(id, idOf(list[1])), ack(other, idOf(list[2])),
	})
	f.must(err)
	for i, err := range errs {
		if foreign := i == 3 || i == 5; errors.Is(err, store.ErrNotFound) != foreign {
			f.Errorf("ack %d: %v", i, err)
		}
	}
	if got := f.status(idOf(list[1])); got.Result == nil || got.Result.Failed {
		f.Errorf("result %+v, want the genuine one, not the foreign one before it", got.Result)
	}
	if f.status(idOf(list[2])).Result != nil {
		f.Error("a client completed another's message")
	}
}

// testAckSome mixes messages that are pending with others, in reports of success alone.
func testAckSome(f *fixture) { // G-19
	id, other := f.client(), f.client()
	list := messages(4, id, "service")
	f.insert(list...)
	f.allNil(f.s.AckMessages(f.ctx, []store.Ack{ack(id, idOf(list[0])), ack(id, idOf(list[0]))}))
	for _, tc := range []struct {
		name    string
		acks    []store.Ack
		foreign []bool
		pending int
	}{
		{"completed", []store.Ack{ack(id, idOf(list[0]))}, []bool{false}, 3},
		{"with a completed one", []store.Ack{ack(id, idOf(list[0])), ack(id, idOf(list[1]))}, []bool{false, false}, 2},
		{"with an unknown one", []store.Ack{ack(id, idOf(list[2])), ack(id, identity.NewMessageID())}, []bool{false, false}, 1},
		{"another's alone", []store.Ack{ack(other, idOf(list[3]))}, []bool{true}, 1},
		{"another's and one's own", []store.Ack{ack(other, idOf(list[3])), ack(id, idOf(list[3]))}, []bool{true, false}, 0},
	} {
		errs, err := f.s.AckMessages(f.ctx, tc.acks)
		f.must(err)
		for i, foreign := range tc.foreign {
			if errors.Is(errs[i], store.ErrNotFound) != foreign {
				f.Errorf("%s: ack %d: %v", tc.name, i, errs[i])
			}
		}
		if got := len(f.due(id, 10).Messages); got != tc.pending {
			f.Errorf("%s: %d pending, want %d", tc.name, got, tc.pending)
		}
	}
	for i, m := range list {
		if got := f.status(idOf(m)); got.Result == nil || got.Result.Failed || !recent(got.Result.Processed) || !proto.Equal(got.Creation, m.CreationTime) {
			f.Errorf("status of message %d: %+v", i, got)
		}
	}
}

func testFirstResult(f *fixture) {
	id := f.client()
	m, n := message(id, "service"), message(id, "service")
	f.insert(m, n)
	f.allNil(f.s.AckMessages(f.ctx, []store.Ack{ack(id, idOf(m)), failure(id, idOf(m), "late"), failure(id, idOf(n), "first"), ack(id, idOf(n))}))
	before := f.status(idOf(m))
	f.allNil(f.s.AckMessages(f.ctx, []store.Ack{failure(id, idOf(m), "later"), ack(id, idOf(n))}))
	if after := f.status(idOf(m)); after.Result.Failed || !after.Result.Processed.Equal(before.Result.Processed) {
		f.Errorf("a repeat changed the result: %+v, before %+v", after.Result, before.Result)
	}
	if got := f.status(idOf(n)); !got.Result.Failed || got.Result.Reason != "first" {
		f.Errorf("result %+v, want the first", got.Result)
	}
}

func testAckRekey(f *fixture) {
	before, after := f.client(), f.client()
	request, ordinary := rekey(before), message(before, "system")
	f.insert(request, ordinary)
	errs, err := f.s.AckMessages(f.ctx, []store.Ack{ack(after, idOf(request)), ack(after, idOf(ordinary))})
	f.must(err)
	if errs[0] != nil || !errors.Is(errs[1], store.ErrNotFound) {
		f.Errorf("errors %v, want only the ordinary message refused", errs)
	}
	if f.status(idOf(request)).Result == nil {
		f.Error("a RekeyRequest is still pending after the client acknowledged it under its next ID")
	}
}

func testAckReasons(f *fixture) {
	id := f.client()
	reasons := []string{"", strings.Repeat("é", 1<<20), "bad \xff\xfe bytes", "'; DROP TABLE message_results; --\x00\\"}
	list := messages(len(reasons), id, "service")
	f.insert(list...)
	var acks []store.Ack
	for i, m := range list {
		acks = append(acks, failure(id, idOf(m), reasons[i]))
	}
	f.allNil(f.s.AckMessages(f.ctx, acks))
	for i, m := range list {
		got := f.status(idOf(m)).Result
		if !got.Failed || !utf8.ValidString(got.Reason) || len(got.Reason) > 64<<10 {
			f.Errorf("reason %d comes back as %d bytes", i, len(got.Reason))
		}
		if i == 3 && got.Reason != reasons[3] {
			f.Errorf("reason %q, want %q", got.Reason, reasons[3])
		}
	}
}

func testManyAcks(f *fixture) {
	known := f.clients(3)
	var acks []store.Ack
	var list []*fspb.Message
	for i := range 1700 {
		m := message(known[i%3], "service")
		list = append(list, m)
		acks = append(acks, ack(known[i%3], idOf(m)))
	}
	f.insert(list...)
	f.allNil(f.s.AckMessages(f.ctx, acks))
	if count, err := f.s.PendingCount(f.ctx, known); err != nil || count != 0 {
		f.Errorf("%d pending, %v", count, err)
	}
	if n := f.db.Count(f, "SELECT COUNT(*) FROM message_results WHERE failed = 0"); n != 1700 {
		f.Errorf("%d results, want 1700", n)
	}
}

// testAckRace lets servers insert, fetch, record attempts and acknowledge over the same clients: nothing may be lost, and
// no transaction may give up for deadlocks.
func testAckRace(f *fixture) { // gaps.md H
	const rounds, batch = 10, 40
	known := f.clients(20)
	f.race(rounds, func(round int, s *sqlbase.Store, number int) {
		var list []*fspb.Message
		for i := range batch {
			list = append(list, message(known[i%len(known)], "service"))
		}
		if _, err := s.InsertMessages(f.ctx, list); err != nil {
			f.Error(err)
		}
		var workers sync.WaitGroup
		for part := range slices.Chunk(known, len(known)/2) {
			workers.Go(func() { f.fetchAndAck(s, part) })
		}
		workers.Wait()
	})
	f.fetchAndAck(f.s, known)
	if count, err := f.s.PendingCount(f.ctx, known); err != nil || count != 0 {
		f.Errorf("%d pending, %v", count, err)
	}
	if n := f.db.Count(f, "SELECT COUNT(*) FROM message_results"); n != 2*rounds*batch {
		f.Errorf("%d results, want %d", n, 2*rounds*batch)
	}
}

func (f *fixture) fetchAndAck(s *sqlbase.Store, clients []identity.ClientID) {
	var requests []store.DueRequest
	for _, id := range clients {
		requests = append(requests, store.DueRequest{ClientID: id, Limit: 100})
	}
	due, err := s.DueMessages(f.ctx, requests)
	if err != nil {
		f.Error(err)
		return
	}
	var refs []store.MessageRef
	var acks []store.Ack
	for id, d := range due {
		for _, m := range d.Messages {
			refs = append(refs, store.MessageRef{ClientID: id, ID: m.ID})
			acks = append(acks, ack(id, m.ID))
		}
	}
	if err := s.RecordAttempts(f.ctx, refs, 0); err != nil {
		f.Error(err)
	}
	if _, err := s.AckMessages(f.ctx, acks); err != nil {
		f.Error(err)
	}
}

func testComplete(f *fixture) {
	id, other := f.client(), f.client()
	list := messages(2, id, "system")
	f.insert(list...)
	f.must(f.s.CompleteMessages(f.ctx, []store.MessageRef{
		{ClientID: id, ID: idOf(list[0])}, {ClientID: id, ID: identity.NewMessageID()}, {ClientID: other, ID: idOf(list[1])},
	}))
	if got := f.status(idOf(list[0])); got.Result == nil || got.Result.Failed {
		f.Errorf("result %+v, want success", got.Result)
	}
	if got := f.status(idOf(list[1])); got.Result != nil {
		f.Error("completed another client's message")
	}
	f.must(f.s.CompleteMessages(f.ctx, nil))
}

func testStatusUnknown(f *fixture) {
	for _, id := range []identity.MessageID{{}, identity.NewMessageID()} {
		if _, err := f.s.MessageStatus(f.ctx, id); !errors.Is(err, store.ErrNotFound) {
			f.Errorf("status of %v: %v, want ErrNotFound", id, err)
		}
	}
}
