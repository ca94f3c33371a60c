package storetest

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

var insertTests = []test{
	{name: "WholeMessageIsKept_G39", run: testWholeMessage},
	{name: "Outcomes", run: testInsertOutcomes},
	{name: "DuplicatesOfPendingAndCompleted", run: testInsertDuplicates},
	{name: "TwoServersInsertOneMessage", run: func(f *fixture) { raceInserts(f, 30) }},
	{name: "InsertWhileAcknowledged", run: func(f *fixture) { raceInsertsAndAcks(f, 20) }},
	{name: "TwoServersInsertOneMessageAlone", run: func(f *fixture) { raceInserts(f, 1) }},
	{name: "InsertAloneWhileAcknowledged", run: func(f *fixture) { raceInsertsAndAcks(f, 1) }},
	{name: "Alone", run: testInsertAlone, options: Options{MaxPendingPerClient: 1000}},
	{name: "AloneAndTogetherInOrder", run: testInsertOrder},
	{name: "OneRekeyRequest_G10", run: testOneRekey},
	{name: "TwoServersRekeyOneClient_G10", run: testRekeyRace},
	{name: "QueueFull", run: testQueueFull, options: Options{MaxPendingPerClient: 10}},
	{name: "LargeMessages_G16", run: testLargeMessages},
}

// wholeMessage has every field that may be stored.
func wholeMessage(to identity.ClientID) *fspb.Message {
	m := message(to, "service")
	m.Source.ClientId = identity.NewClientID().Bytes()
	m.SourceMessageId = []byte(strings.Repeat("long ", 20))
	m.ValidationInfo = &fspb.ValidationInfo{Tags: map[string]string{"k": "v"}}
	m.Priority = fspb.Message_HIGH
	m.Background = true
	m.Annotations = &fspb.Annotations{Entries: []*fspb.Annotations_Entry{{Key: "a", Value: "1"}, {Key: "a", Value: "2"}}}
	m.CreationTime = &timestamppb.Timestamp{Seconds: -1, Nanos: 5}
	return m
}

func testWholeMessage(f *fixture) { // G-39
	id := f.client()
	whole, bare, empty := wholeMessage(id), message(id, "service"), message(id, "service")
	bare.Data, bare.CreationTime, bare.MessageType = nil, nil, ""
	empty.Data = &anypb.Any{}
	f.insert(whole, bare, empty)
	due := f.due(id, 10)
	if len(due.Messages) != 3 || due.More {
		f.Fatalf("%d messages due, more %v", len(due.Messages), due.More)
	}
	for i, want := range []*fspb.Message{whole, bare, empty} {
		got := &fspb.Message{}
		f.must(proto.Unmarshal(due.Messages[i].Encoded, got))
		if !proto.Equal(got, want) || (got.Data == nil) != (want.Data == nil) {
			f.Errorf("message %d comes back as %v, want %v", i, got, want)
		}
		m := due.Messages[i]
		if m.ClientID != id || m.ID != idOf(want) || m.Service != "service" || m.Type != want.GetMessageType() || m.Attempts != 0 {
			f.Errorf("message %d: %+v", i, m)
		}
	}
	if got := f.status(idOf(whole)); got.Result != nil || !proto.Equal(got.Creation, whole.CreationTime) {
		f.Errorf("status %+v", got)
	}
	if got := f.status(idOf(bare)); got.Creation != nil {
		f.Errorf("creation %v of a message without one", got.Creation)
	}
}

func testInsertOutcomes(f *fixture) {
	id := f.client()
	f.contact(store.ContactUpdate{ClientID: id, Key: keyOf(id), StreamingTo: "s1:1"})
	broken := func(change func(*fspb.Message)) *fspb.Message {
		m := message(id, "service")
		change(m)
		return m
	}
	cases := []struct {
		name string
		m    *fspb.Message
		err  error
	}{
		{"good", message(id, "service"), nil},
		{"unknown client", message(identity.NewClientID(), "service"), store.ErrUnknownClient},
		{"short client ID", broken(func(m *fspb.Message) { m.Destination.ClientId = []byte{1} }), store.ErrInvalid},
		{"no client ID", broken(func(m *fspb.Message) { m.Destination.ClientId = nil }), store.ErrInvalid},
		{"no destination", broken(func(m *fspb.Message) { m.Destination = nil }), store.ErrInvalid},
		{"no message ID", broken(func(m *fspb.Message) { m.MessageId = nil }), store.ErrInvalid},
		{"long message ID", broken(func(m *fspb.Message) { m.MessageId = make([]byte, 33) }), store.ErrInvalid},
		{"long service", broken(func(m *fspb.Message) { m.Destination.ServiceName = strings.Repeat("x", store.MaxName+1) }), store.ErrInvalid},
		{"result", broken(func(m *fspb.Message) { m.Result = &fspb.MessageResult{} }), store.ErrInvalid}, // G-58
		{"long type", broken(func(m *fspb.Message) { m.MessageType = strings.Repeat("日", 1000) }), nil},
		{"nothing", nil, store.ErrInvalid},
	}
	var list []*fspb.Message
	for _, tc := range cases {
		list = append(list, tc.m)
	}
	outcomes, err := f.s.InsertMessages(f.ctx, list)
	f.must(err)
	for i, tc := range cases {
		o := outcomes[i]
		if !errors.Is(o.Err, tc.err) || o.Duplicate {
			f.Errorf("%s: %+v, want error %v", tc.name, o, tc.err)
		}
		if tc.err == nil && o.StreamingTo != "s1:1" {
			f.Errorf("%s: streaming to %q", tc.name, o.StreamingTo)
		}
	}
	due := f.due(id, 10)
	if len(due.Messages) != 2 {
		f.Fatalf("%d messages, want the two good ones", len(due.Messages))
	}
	long := &fspb.Message{}
	f.must(proto.Unmarshal(due.Messages[1].Encoded, long))
	if long.MessageType != strings.Repeat("日", 1000) {
		f.Error("a long message type was cut in the message itself")
	}
	if none, err := f.s.InsertMessages(f.ctx, nil); err != nil || len(none) != 0 {
		f.Errorf("no messages: %v, %v", none, err)
	}
}

func testInsertDuplicates(f *fixture) {
	id := f.client()
	pending, completed, fresh := message(id, "service"), message(id, "service"), message(id, "service")
	f.insert(pending, completed)
	f.allNil(f.s.AckMessages(f.ctx, []store.Ack{{MessageRef: store.MessageRef{ClientID: id, ID: idOf(completed)}}}))
	again := proto.CloneOf(pending)
	again.MessageType = "Changed"
	outcomes, err := f.s.InsertMessages(f.ctx, []*fspb.Message{fresh, again, completed, fresh})
	f.must(err)
	for i, want := range []bool{false, true, true, true} {
		if outcomes[i].Err != nil || outcomes[i].Duplicate != want {
			f.Errorf("message %d: %+v, want duplicate %v", i, outcomes[i], want)
		}
	}
	due := f.due(id, 10)
	if got, want := dueIDs(due), idsOf([]*fspb.Message{pending, fresh}); !slices.Equal(got, want) {
		f.Fatalf("due %v, want %v", got, want)
	}
	if due.Messages[0].Type != "Task" {
		f.Error("the payload of the first insert must stay")
	}
	if f.status(idOf(completed)).Result == nil {
		f.Error("a repeated insert took the result away")
	}
}

// raceInserts lets two servers insert the same messages, so many by one call.
func raceInserts(f *fixture, together int) {
	const rounds, batch = 10, 30
	known := f.clients(5)
	var all [][]*fspb.Message
	for range rounds {
		var list []*fspb.Message
		for i := range batch {
			list = append(list, message(known[i%len(known)], "service"))
		}
		all = append(all, list)
	}
	var mu sync.Mutex
	inserted := 0
	f.race(rounds, func(round int, s *sqlbase.Store, number int) {
		list := slices.Clone(all[round])
		if number == 1 {
			slices.Reverse(list)
		}
		for part := range slices.Chunk(list, together) {
			outcomes, err := s.InsertMessages(f.ctx, part)
			if err != nil {
				f.Error(err)
				return
			}
			mu.Lock()
			for _, o := range outcomes {
				if o.Err != nil {
					f.Error(o.Err)
				}
				if !o.Duplicate {
					inserted++
				}
			}
			mu.Unlock()
		}
	})
	if count, err := f.s.PendingCount(f.ctx, known); err != nil || count != rounds*batch || inserted != rounds*batch {
		f.Errorf("%d pending, %d said to be inserted, %v; want %d", count, inserted, err, rounds*batch)
	}
}

// raceInsertsAndAcks lets one server repeat the inserts of messages that another completes, so many by one call.
func raceInsertsAndAcks(f *fixture, together int) {
	const rounds, batch = 15, 20
	id := f.client()
	f.race(rounds, func() func(int, *sqlbase.Store, int) {
		lists := make([][]*fspb.Message, rounds)
		for i := range lists {
			lists[i] = messages(batch, id, "service")
			f.insert(lists[i]...)
		}
		return func(round int, s *sqlbase.Store, number int) {
			for part := range slices.Chunk(lists[round], together) {
				var err error
				if number == 0 {
					_, err = s.InsertMessages(f.ctx, part)
				} else {
					err = s.CompleteMessages(f.ctx, refsOf(id, idsOf(part)))
				}
				if err != nil {
					f.Error(err)
				}
			}
		}
	}())
	if count, err := f.s.PendingCount(f.ctx, []identity.ClientID{id}); err != nil || count != 0 {
		f.Errorf("%d messages pending, %v: a repeated insert brought a completed message back", count, err)
	}
}

// testInsertAlone inserts messages by calls of their own: those that a statement of its own stores, and those that it
// leaves to the way of many.
func testInsertAlone(f *fixture) {
	id := f.client()
	f.contact(store.ContactUpdate{ClientID: id, Key: keyOf(id), StreamingTo: "s1:1"})
	alone := func(m *fspb.Message) store.InsertOutcome {
		f.Helper()
		outcomes, err := f.s.InsertMessages(f.ctx, []*fspb.Message{m})
		f.must(err)
		return outcomes[0]
	}
	plain := func(o store.InsertOutcome) store.InsertOutcome {
		o.Handover = nil
		return o
	}
	fresh := store.InsertOutcome{StreamingTo: "s1:1"}
	repeat := store.InsertOutcome{StreamingTo: "s1:1", Duplicate: true}
	whole, completed, large := wholeMessage(id), message(id, "service"), message(id, "service")
	large.Data.Value = []byte(strings.Repeat("large", 10_000))
	for _, m := range []*fspb.Message{message(id, "service"), whole, completed, large} { // the queue is counted for the first
		if got := plain(alone(m)); got != fresh {
			f.Errorf("outcome %+v, want %+v", got, fresh)
		}
	}
	f.allNil(f.s.AckMessages(f.ctx, []store.Ack{{MessageRef: store.MessageRef{ClientID: id, ID: idOf(completed)}}}))
	for _, m := range []*fspb.Message{whole, completed} {
		if got := alone(m); got != repeat {
			f.Errorf("outcome %+v of a repeat, want %+v", got, repeat)
		}
	}
	if got := alone(message(identity.NewClientID(), "service")); !errors.Is(got.Err, store.ErrUnknownClient) {
		f.Errorf("outcome %+v for an unknown client", got)
	}
	due := f.due(id, 10).Messages
	if len(due) != 3 || due[1].ID != idOf(whole) || due[2].ID != idOf(large) {
		f.Fatalf("due %v, want three, the completed message not among them", due)
	}
	got := &fspb.Message{}
	f.must(proto.Unmarshal(due[1].Encoded, got))
	if !proto.Equal(got, whole) {
		f.Errorf("a message comes back as %v, want %v", got, whole)
	}
}

func testInsertOrder(f *fixture) {
	id := f.client()
	var want []*fspb.Message
	for i := range 30 {
		list := messages([]int{1, 1, 20, 1, 3}[i%5], id, "service")
		f.insert(list...)
		want = append(want, list...)
	}
	if got := dueIDs(f.due(id, 1000)); !slices.Equal(got, idsOf(want)) {
		f.Errorf("%d messages due in another order than %d were inserted in", len(got), len(want))
	}
}

func rekey(to identity.ClientID) *fspb.Message {
	m := message(to, "system")
	m.Source.ServiceName, m.MessageType = "system", "RekeyRequest"
	return m
}

func testOneRekey(f *fixture) { // G-10
	known := f.clients(2)
	first := rekey(known[0])
	f.insert(first, rekey(known[1]))
	f.must(f.s.RecordAttempts(f.ctx, refsOf(known[0], idsOf([]*fspb.Message{first})), time.Hour))
	if got := f.due(known[0], 10); len(got.Messages) != 0 {
		f.Fatalf("%d messages due right after an attempt", len(got.Messages))
	}
	operators := rekey(known[0]) // the same type from another source is an ordinary message
	operators.Source.ServiceName = "backend"
	outcomes, err := f.s.InsertMessages(f.ctx, []*fspb.Message{rekey(known[0]), operators, rekey(known[0])})
	f.must(err)
	if !outcomes[0].Duplicate || outcomes[1].Duplicate || !outcomes[2].Duplicate {
		f.Errorf("outcomes %+v, want the server's requests to be the one that is pending", outcomes)
	}
	if got, want := dueIDs(f.due(known[0], 10)), idsOf([]*fspb.Message{first, operators}); !slices.Equal(got, want) {
		f.Errorf("due %v, want the pending request, due again at once, and the ordinary message", got)
	}
	f.must(f.s.CompleteMessages(f.ctx, refsOf(known[0], idsOf([]*fspb.Message{first}))))
	f.insert(rekey(known[0]))
}

func testRekeyRace(f *fixture) { // G-10
	const rounds = 10
	known := f.clients(rounds)
	f.race(rounds, func(round int, s *sqlbase.Store, _ int) {
		if _, err := s.InsertMessages(f.ctx, []*fspb.Message{rekey(known[round])}); err != nil {
			f.Error(err)
		}
	})
	if count, err := f.s.PendingCount(f.ctx, known); err != nil || count != rounds {
		f.Errorf("%d requests pending for %d clients, %v", count, rounds, err)
	}
}

func testQueueFull(f *fixture) {
	full, other := f.client(), f.client()
	list := messages(10, full, "service")
	f.insert(list...)
	f.expectFull(full, other, list[0])
	f.must(f.s.CompleteMessages(f.ctx, refsOf(full, idsOf(list))))
	fresh := f.db.Open(f, Options{MaxPendingPerClient: 10}) // counts anew
	outcomes, err := fresh.InsertMessages(f.ctx, []*fspb.Message{message(full, "service")})
	if err != nil || outcomes[0].Err != nil {
		f.Errorf("a queue that was emptied is still full: %+v, %v", outcomes, err)
	}
}

func (f *fixture) expectFull(full, other identity.ClientID, known *fspb.Message) {
	f.Helper()
	outcomes, err := f.s.InsertMessages(f.ctx, []*fspb.Message{message(full, "service"), message(other, "service"), known})
	f.must(err)
	if !errors.Is(outcomes[0].Err, store.ErrQueueFull) || outcomes[1].Err != nil {
		f.Errorf("outcomes %+v, want only the full queue to refuse", outcomes)
	}
	if outcomes[2].Err != nil || !outcomes[2].Duplicate {
		f.Errorf("outcome %+v, want a repeat taken even by a full queue", outcomes[2])
	}
}

func testLargeMessages(f *fixture) { // G-16
	id := f.client()
	sized := func(n int, fill byte) *fspb.Message {
		m := message(id, "service")
		m.Data.Value = []byte(strings.Repeat(string(rune(fill)), n))
		return m
	}
	// Zeros and quotes are what a statement's text has to escape.
	list := []*fspb.Message{
		sized(2<<20, 0), sized(2<<20, '\''), sized(100, 'a'), sized(4096, '\\'), sized(13<<20, 0), sized(store.MaxMessageBytes+1, 'x'),
	}
	outcomes, err := f.s.InsertMessages(f.ctx, list)
	f.must(err)
	for i, o := range outcomes {
		if want := i == 5; errors.Is(o.Err, store.ErrInvalid) != want {
			f.Errorf("message %d: %+v", i, o)
		}
	}
	got := make(map[identity.MessageID][]byte)
	for len(got) < 5 {
		due := f.due(id, 10)
		if len(due.Messages) == 0 {
			f.Fatalf("%d messages, then none", len(got))
		}
		for _, m := range due.Messages {
			got[m.ID] = m.Encoded
		}
		f.must(f.s.RecordAttempts(f.ctx, refsOf(id, dueIDs(due)), time.Hour))
	}
	for i, want := range list[:5] {
		m := &fspb.Message{}
		f.must(proto.Unmarshal(got[idOf(want)], m))
		if !proto.Equal(m, want) {
			f.Errorf("message %d of %d bytes came back changed", i, proto.Size(want))
		}
	}
}
