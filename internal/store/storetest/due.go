package storetest

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

var dueTests = []test{
	{name: "OrderOfInsertion", run: testDueOrder},
	{name: "ServicesAndLimits", run: testDueFilter},
	{name: "OddNames", run: testDueOddNames},
	{name: "ManyClientsShareEvenly_G21", run: testDueManyClients},
	{name: "BytesAreBounded_G50", run: testDueBytes, options: Options{MaxFetchBytes: 100_000}},
	{name: "Attempts", run: testAttempts},
	{name: "BrokenSession", run: testBrokenSession},
	{name: "StoreClockDecides_G48", run: testStoreClock},
	{name: "DueClients", run: testDueClients},
	{name: "DueClientsOfOneMoment", run: testDueClientsTies},
	{name: "PendingStats", run: testPendingStats},
	{name: "FewStatements_G21", run: testFewStatements},
}

func testDueOrder(f *fixture) {
	id := f.client()
	var want []identity.MessageID
	for range 10 {
		list := messages(7, id, "service")
		f.insert(list...)
		want = append(want, idsOf(list)...)
	}
	if got := dueIDs(f.due(id, 1000)); !slices.Equal(got, want) {
		f.Error("messages do not come in the order of insertion")
	}
}

func testDueFilter(f *fixture) {
	id, other := f.client(), f.client()
	a, b, c := messages(3, id, "a"), messages(3, id, "b"), messages(3, id, "A")
	f.insert(slices.Concat(a, b, c)...)
	f.insert(message(other, "a"))
	for _, tc := range []struct {
		name     string
		services []string
		limit    int
		want     []*fspb.Message
		more     bool
	}{
		{"all", nil, 100, slices.Concat(a, b, c), false},
		{"one service", []string{"b"}, 100, b, false},
		{"two services", []string{"b", "a"}, 100, slices.Concat(a, b), false},
		{"case counts", []string{"A"}, 100, c, false},
		{"unknown service", []string{"x", "a "}, 100, nil, false},
		{"no service", []string{}, 100, nil, false},
		{"limit", nil, 2, a[:2], true},
		{"limit in a service", []string{"A"}, 2, c[:2], true},
		{"no limit left", nil, 0, nil, false},
	} {
		got, err := f.s.DueMessages(f.ctx, []store.DueRequest{{ClientID: id, Services: tc.services, Limit: tc.limit}})
		f.must(err)
		due := got[id]
		if due == nil {
			due = &store.DueMessages{}
		}
		if !slices.Equal(dueIDs(due), idsOf(tc.want)) || due.More != tc.more {
			f.Errorf("%s: %d messages, more %v; want %d, %v", tc.name, len(due.Messages), due.More, len(tc.want), tc.more)
		}
	}
	if none, err := f.s.DueMessages(f.ctx, nil); err != nil || len(none) != 0 {
		f.Errorf("no requests: %v, %v", none, err)
	}
}

func testDueManyClients(f *fixture) { // G-21
	known := f.clients(250)
	var all []*fspb.Message
	want := make(map[identity.ClientID][]identity.MessageID)
	for i, id := range known {
		n := i % 4
		if i == 0 {
			n = 3000 // a client that was away for long
		}
		list := messages(n, id, []string{"a", "b"}[i%2])
		all = append(all, list...)
		want[id] = idsOf(list)
	}
	f.insert(all...)
	var requests []store.DueRequest
	for i, id := range known {
		requests = append(requests, store.DueRequest{ClientID: id, Limit: 100, Services: [][]string{nil, {"a", "b", "c"}, {"a"}}[i%3]})
	}
	requests = append(requests, requests[1], store.DueRequest{ClientID: identity.NewClientID(), Limit: 5})
	got, err := f.s.DueMessages(f.ctx, requests)
	f.must(err)
	for i, id := range known {
		due := got[id]
		switch {
		case i == 0:
			if n := len(due.Messages); n == 0 || n >= 100 || !due.More || !slices.Equal(dueIDs(due), want[id][:n]) {
				f.Errorf("the busy client got %d messages, more %v", n, due.More)
			}
		case i%3 == 2 && i%2 == 1: // asked for the other service
			if len(due.Messages) != 0 {
				f.Errorf("client %d got messages of a service that was not asked for", i)
			}
		case !slices.Equal(dueIDs(due), want[id]) || due.More:
			f.Errorf("client %d got %d messages, want %d", i, len(due.Messages), len(want[id]))
		}
	}
}

func testDueBytes(f *fixture) { // G-50
	known := f.clients(3)
	for _, id := range known {
		for range 5 {
			m := message(id, "service")
			m.Data.Value = []byte(strings.Repeat("x", 20_000))
			f.insert(m)
		}
	}
	var requests []store.DueRequest
	for _, id := range known {
		requests = append(requests, store.DueRequest{ClientID: id, Limit: 100})
	}
	got, err := f.s.DueMessages(f.ctx, requests)
	f.must(err)
	total := 0
	for _, id := range known {
		if n := len(got[id].Messages); n == 0 || n > 2 || !got[id].More {
			f.Errorf("client got %d messages, more %v; want an even share", n, got[id].More)
		}
		for _, m := range got[id].Messages {
			total += len(m.Encoded)
		}
	}
	if total > 100_000 {
		f.Errorf("%d bytes, want at most 100000", total)
	}
	huge := message(known[0], "huge")
	huge.Data.Value = make([]byte, 300_000)
	f.insert(huge)
	if due := f.due(known[0], 5, "huge"); len(due.Messages) != 1 {
		f.Error("a message over the bound must come alone, and not never")
	}
}

func testAttempts(f *fixture) {
	id := f.client()
	list := messages(2, id, "service")
	f.insert(list...)
	refs := refsOf(id, idsOf(list[:1]))
	f.must(f.s.RecordAttempts(f.ctx, append(refs, store.MessageRef{ClientID: id, ID: identity.NewMessageID()}), time.Hour))
	if got := dueIDs(f.due(id, 10)); !slices.Equal(got, idsOf(list[1:])) {
		f.Errorf("due %v, want only the message that was not handed out", got)
	}
	f.must(f.s.RecordAttempts(f.ctx, refs, -time.Second))
	due := f.due(id, 10)
	if len(due.Messages) != 2 || due.Messages[0].Attempts != 2 || due.Messages[1].Attempts != 0 {
		f.Errorf("due %+v, want both, the first after two attempts", due.Messages)
	}
	f.must(f.s.RecordAttempts(f.ctx, nil, time.Hour))
}

// What was handed out once is due again when its client starts a session where none has ended, or when its session broke; a
// poll, an impostor, another client and a session that ended in order leave it alone, and what was handed out twice waits
// its time.
func testBrokenSession(f *fixture) {
	id := f.client()
	begin := store.ContactUpdate{ClientID: id, Key: keyOf(id), StreamingTo: "s:1"}
	f.contact(begin)
	list := messages(3, id, "service")
	f.insert(list...)
	once, twice := idsOf(list[:1]), idsOf(list[1:2])
	f.must(f.s.RecordAttempts(f.ctx, refsOf(id, once), time.Hour))
	for range 2 {
		f.must(f.s.RecordAttempts(f.ctx, refsOf(id, twice), time.Hour))
	}
	fresh := idsOf(list[2:])
	other := f.client()
	end := func(broken bool) {
		f.must(f.s.EndSessions(f.ctx, []store.SessionEnd{{ClientID: id, StreamingTo: "s:1", Broken: broken}}))
	}
	for _, step := range []struct {
		name string
		do   func()
		want []identity.MessageID
	}{
		{"another key", func() { f.contact(store.ContactUpdate{ClientID: id, Key: []byte("other"), StreamingTo: "s:1"}) }, fresh},
		{"another client", func() { f.contact(store.ContactUpdate{ClientID: other, Key: keyOf(other), StreamingTo: "s:1"}) }, fresh},
		{"end in order", func() { end(false); f.contact(begin) }, fresh},
		{"poll", func() { f.contact(store.ContactUpdate{ClientID: id, Key: keyOf(id)}); f.contact(begin) }, fresh},
		{"lost end", func() { f.contact(begin) }, slices.Concat(once, fresh)},
		{"taken once more", func() { f.must(f.s.RecordAttempts(f.ctx, refsOf(id, once), time.Hour)); f.contact(begin) }, fresh},
		{"first time", func() { f.must(f.s.RecordAttempts(f.ctx, refsOf(id, fresh), time.Hour)) }, nil},
		{"broken end elsewhere", func() {
			f.must(f.s.EndSessions(f.ctx, []store.SessionEnd{{ClientID: id, StreamingTo: "s:2", Broken: true}}))
		}, nil},
		{"broken end", func() { end(true) }, fresh},
	} {
		step.do()
		if got := dueIDs(f.due(id, 10)); !slices.Equal(got, step.want) {
			f.Errorf("%s: due %v, want %v", step.name, got, step.want)
		}
	}
}

func testStoreClock(f *fixture) { // G-48: callers pass durations, never due times; due times come from the store's clock
	id := f.client()
	list := messages(1, id, "service")
	f.insert(list...)
	f.must(f.s.RecordAttempts(f.ctx, refsOf(id, idsOf(list)), 15*time.Minute))
	due := f.db.Count(f, "SELECT due_us FROM client_messages")
	now, err := f.s.Heartbeat(f.ctx, store.ServerInfo{ID: "s"})
	f.must(err)
	if in := time.UnixMicro(due).Sub(now); in < 14*time.Minute || in > 15*time.Minute {
		f.Errorf("due in %v by the store's clock, want 15m", in)
	}
}

func testDueClients(f *fixture) {
	known := f.clients(6)
	start, err := f.s.Heartbeat(f.ctx, store.ServerInfo{ID: "s"})
	f.must(err)
	after := start.UnixMicro() - 1
	for i, id := range known[:5] {
		f.insert(messages(i+1, id, "service")...)
	}
	f.must(f.s.RecordAttempts(f.ctx, refsOf(known[0], dueIDs(f.due(known[0], 10))), time.Hour))
	got, upTo, err := f.s.DueClients(f.ctx, after, 1000)
	f.must(err)
	want := slices.SortedFunc(slices.Values(known[1:5]), compareIDs)
	if !slices.Equal(got, want) || upTo < after {
		f.Errorf("due clients %v up to %d, want %v", got, upTo, want)
	}
	if again, _, err := f.s.DueClients(f.ctx, upTo, 1000); err != nil || len(again) != 0 {
		f.Errorf("after the cursor: %v, %v", again, err)
	}
	// Page by page, nothing is passed over.
	seen := make(map[identity.ClientID]bool)
	for cursor := after; ; {
		page, next, err := f.s.DueClients(f.ctx, cursor, 1)
		f.must(err)
		if len(page) == 0 {
			break
		}
		for _, id := range page {
			seen[id] = true
		}
		cursor = next
	}
	if len(seen) != 4 {
		f.Errorf("pages gave %d clients, want 4", len(seen))
	}
}

func testDueClientsTies(f *fixture) {
	known := f.clients(40)
	var list []*fspb.Message
	for _, id := range known {
		list = append(list, message(id, "service"))
	}
	f.insert(list...) // one batch, one due time
	seen := make(map[identity.ClientID]bool)
	for cursor := int64(0); ; {
		page, next, err := f.s.DueClients(f.ctx, cursor, 7)
		f.must(err)
		if len(page) == 0 {
			break
		}
		for _, id := range page {
			seen[id] = true
		}
		cursor = next
	}
	if len(seen) != len(known) {
		f.Errorf("%d clients, want %d: those that fell due in one moment were passed over", len(seen), len(known))
	}
}

func testPendingStats(f *fixture) {
	depth, oldest, err := f.s.PendingStats(f.ctx)
	if err != nil || depth != 0 || oldest != 0 {
		f.Errorf("empty: %d, %v, %v", depth, oldest, err)
	}
	f.insert(messages(5, f.client(), "service")...)
	f.db.Exec(f, "UPDATE client_messages SET due_us = due_us - 3600000000")
	depth, oldest, err = f.s.PendingStats(f.ctx)
	if err != nil || depth != 5 || oldest < time.Hour || oldest > time.Hour+time.Minute {
		f.Errorf("stats %d, %v, %v; want 5 and an hour", depth, oldest, err)
	}
}

// statements returns how many statements do sends.
func (f *fixture) statements(reg *prometheus.Registry, do func()) int {
	f.Helper()
	before := counter(f, reg, "farspeak_store_statements_total")
	do()
	return int(counter(f, reg, "farspeak_store_statements_total") - before)
}

func counter(f *fixture, reg *prometheus.Registry, name string) float64 {
	f.Helper()
	families, err := reg.Gather()
	f.must(err)
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	f.Fatalf("no metric %s", name)
	return 0
}

// testFewStatements holds how many statements a batch of a hundred clients costs.
func testFewStatements(f *fixture) { // G-21
	known, away := f.clients(100), f.clients(100)
	reg := prometheus.NewRegistry()
	f.s = f.db.Open(f, Options{Registerer: reg})
	var list, later []*fspb.Message
	var updates []store.ContactUpdate
	var requests []store.DueRequest
	for _, id := range known {
		list = append(list, message(id, "service"))
		updates = append(updates, store.ContactUpdate{ClientID: id, Key: keyOf(id), StreamingTo: "s1:1"})
		requests = append(requests, store.DueRequest{ClientID: id, Limit: 10, Services: []string{"service"}})
	}
	for _, id := range away {
		later = append(later, message(id, "service"))
	}
	var acks []store.Ack
	var refs []store.MessageRef
	for i, m := range list {
		refs = append(refs, store.MessageRef{ClientID: known[i], ID: idOf(m)})
		acks = append(acks, store.Ack{MessageRef: refs[i]})
	}
	for _, tc := range []struct {
		name string
		most int
		do   func() error
	}{
		{"contacts", 5, func() error { _, err := f.s.RecordContacts(f.ctx, updates); return err }},
		{"insert", 3, func() error { _, err := f.s.InsertMessages(f.ctx, list); return err }},
		{"insert for absent clients", 4, func() error { _, err := f.s.InsertMessages(f.ctx, later); return err }},
		{"fetch", 2, func() error { _, err := f.s.DueMessages(f.ctx, requests); return err }},
		{"attempts", 1, func() error { return f.s.RecordAttempts(f.ctx, refs, time.Hour) }},
		{"acks", 3, func() error { _, err := f.s.AckMessages(f.ctx, acks); return err }},
		{"empty insert", 0, func() error { _, err := f.s.InsertMessages(f.ctx, nil); return err }},
		{"empty acks", 0, func() error { _, err := f.s.AckMessages(f.ctx, nil); return err }},
	} {
		if n := f.statements(reg, func() { f.must(tc.do()) }); n > tc.most {
			f.Errorf("%s of a hundred clients: %d statements, want at most %d", tc.name, n, tc.most)
		}
	}
}

// Names of services are the clients', with any bytes: one client's must not be taken for another one's list.
func testDueOddNames(f *fixture) {
	odd, plain := f.client(), f.client()
	f.insert(message(odd, "a\x00b"), message(plain, "a"), message(plain, "b"))
	due, err := f.s.DueMessages(f.ctx, []store.DueRequest{
		{ClientID: odd, Services: []string{"a\x00b"}, Limit: 10}, {ClientID: plain, Services: []string{"b", "a"}, Limit: 10},
	})
	f.must(err)
	if len(due[odd].Messages) != 1 || len(due[plain].Messages) != 2 {
		f.Errorf("%d and %d messages, want 1 and 2", len(due[odd].Messages), len(due[plain].Messages))
	}
}
