package storetest

import (
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

var broadcastTests = []test{
	{name: "CreateAndList", run: testCreateBroadcast},
	{name: "Active", run: testActive},
	{name: "Refused", run: testBroadcastRefused},
	{name: "Groups_G34", run: testGroups},
	{name: "TwoServersReplaceOneGroup_G34", run: testGroupRace},
	{name: "Assign", run: testAssign},
	{name: "LimitIsExact_G34_G60", run: testLimitRace},
	{name: "AssignWhileDisabled", run: testAssignInactive},
}

func broadcast(limit uint64) *store.Broadcast {
	return &store.Broadcast{
		ID: identity.NewBroadcastID(), Source: "hunts", Destination: "client-service", Type: "Hunt", Limit: limit,
		Data: []byte("serialized Any"),
	}
}

func (f *fixture) create(b *store.Broadcast) *store.Broadcast {
	f.Helper()
	f.must(f.s.CreateBroadcast(f.ctx, b))
	return b
}

func (f *fixture) active() map[identity.BroadcastID]*store.Broadcast {
	f.Helper()
	list, err := f.s.ActiveBroadcasts(f.ctx)
	f.must(err)
	active := make(map[identity.BroadcastID]*store.Broadcast)
	for _, b := range list {
		active[b.ID] = b
	}
	return active
}

func testCreateBroadcast(f *fixture) {
	full := broadcast(7)
	full.RequiredLabels = []store.Label{{Service: "client", Label: "amd64"}, {Service: "client", Label: "linux"}, {Service: "other", Label: "x"}}
	full.Group = "group"
	full.Expiration = &timestamppb.Timestamp{Seconds: time.Now().Unix() + 3600, Nanos: 999_999_999}
	bare := &store.Broadcast{ID: identity.NewBroadcastID(), Limit: store.UnlimitedBroadcast}
	f.create(full)
	f.create(bare)
	active := f.active()
	for _, want := range []*store.Broadcast{full, bare} {
		if diff := cmp.Diff(want, active[want.ID], protocmp.Transform()); diff != "" {
			f.Errorf("broadcast (-want +got):\n%s", diff)
		}
	}
	if err := f.s.CreateBroadcast(f.ctx, broadcastWithID(full.ID)); !errors.Is(err, store.ErrConflict) {
		f.Errorf("a taken ID: %v, want ErrConflict", err)
	}
	if got := f.active()[full.ID]; len(got.RequiredLabels) != 3 {
		f.Error("a refused broadcast changed the one that has its ID")
	}
}

func broadcastWithID(id identity.BroadcastID) *store.Broadcast {
	b := broadcast(1)
	b.ID = id
	return b
}

func testActive(f *fixture) {
	now := time.Now()
	for name, tc := range map[string]struct {
		limit   uint64
		expires *timestamppb.Timestamp
		active  bool
	}{
		"limit 0":           {0, nil, false},
		"limit 1":           {1, nil, true},
		"huge finite limit": {math.MaxUint64, nil, true},
		"expired":           {5, timestamppb.New(now.Add(-time.Minute)), false},
		"expires later":     {5, timestamppb.New(now.Add(time.Hour)), true},
		"expired in 1970":   {5, &timestamppb.Timestamp{}, false},
		"hostile past":      {5, &timestamppb.Timestamp{Seconds: math.MinInt64, Nanos: -1}, false},
		"hostile future":    {5, &timestamppb.Timestamp{Seconds: math.MaxInt64, Nanos: math.MaxInt32}, true},
	} {
		b := broadcast(tc.limit)
		b.Expiration = tc.expires
		f.create(b)
		if _, active := f.active()[b.ID]; active != tc.active {
			f.Errorf("%s: active %v, want %v", name, active, tc.active)
		}
	}
	b := f.create(broadcast(5))
	f.must(f.s.DisableBroadcasts(f.ctx, []identity.BroadcastID{b.ID, identity.NewBroadcastID(), b.ID}))
	if f.active()[b.ID] != nil {
		f.Error("active after it was disabled")
	}
	f.must(f.s.DisableBroadcasts(f.ctx, nil))
}

func testBroadcastRefused(f *fixture) {
	long := strings.Repeat("x", store.MaxName+1)
	for name, change := range map[string]func(*store.Broadcast){
		"source":       func(b *store.Broadcast) { b.Source = long },
		"destination":  func(b *store.Broadcast) { b.Destination = long },
		"message type": func(b *store.Broadcast) { b.Type = long },
		"group":        func(b *store.Broadcast) { b.Group = long },
		"label":        func(b *store.Broadcast) { b.RequiredLabels = []store.Label{{Service: "client", Label: long}} },
		"data":         func(b *store.Broadcast) { b.Data = make([]byte, store.MaxMessageBytes+1) },
	} {
		b := broadcast(1)
		change(b)
		if err := f.s.CreateBroadcast(f.ctx, b); !errors.Is(err, store.ErrInvalid) {
			f.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if n := len(f.active()); n != 0 {
		f.Errorf("%d broadcasts were stored", n)
	}
}

func testGroups(f *fixture) { // G-34
	grouped := func(group string, labels ...string) *store.Broadcast {
		b := broadcast(5)
		b.Group = group
		for _, label := range labels {
			b.RequiredLabels = append(b.RequiredLabels, store.Label{Service: "client", Label: label})
		}
		return f.create(b)
	}
	old := grouped("g", "a", "b")
	kept := []*store.Broadcast{grouped("G", "a", "b"), grouped("g", "a"), grouped("g", "a", "b", "c"), grouped("", "a", "b"), grouped("", "a", "b")}
	otherSource := broadcast(5)
	otherSource.Group, otherSource.Source, otherSource.RequiredLabels = "g", "others", old.RequiredLabels
	kept = append(kept, f.create(otherSource), grouped("g", "b", "a"))
	active := f.active()
	if active[old.ID] != nil {
		f.Error("the replaced broadcast is still active")
	}
	for i, b := range kept {
		if active[b.ID] == nil {
			f.Errorf("broadcast %d was replaced, though group, source or labels differ", i)
		}
	}
}

func testGroupRace(f *fixture) { // G-34
	const rounds = 10
	f.race(rounds, func(_ int, s *sqlbase.Store, _ int) {
		b := broadcast(5)
		b.Group = "g"
		if err := s.CreateBroadcast(f.ctx, b); err != nil {
			f.Error(err)
		}
	})
	if n := len(f.active()); n != 1 {
		f.Errorf("%d broadcasts of one group are active, want 1", n)
	}
}

// instance makes the message of a broadcast for a client.
func instance(b *store.Broadcast) func(identity.ClientID) *fspb.Message {
	return func(id identity.ClientID) *fspb.Message {
		m := message(id, b.Destination)
		m.Source.ServiceName, m.MessageType = b.Source, b.Type
		return m
	}
}

func testAssign(f *fixture) {
	known := f.clients(4)
	b := f.create(broadcast(store.UnlimitedBroadcast))
	got, err := f.s.AssignBroadcast(f.ctx, b.ID, []identity.ClientID{known[2], known[0], known[2]}, instance(b), time.Hour)
	f.must(err)
	if len(got) != 2 || got[0].ClientID != known[2] || got[1].ClientID != known[0] {
		f.Fatalf("assigned %+v, want the two clients once each, in order", got)
	}
	for _, p := range got {
		m := &fspb.Message{}
		f.must(proto.Unmarshal(p.Encoded, m))
		if identity.MessageID(m.MessageId) != p.ID || p.Attempts != 1 || p.Service != "client-service" || p.Type != "Hunt" || m.Data == nil {
			f.Errorf("assigned %+v with message %v", p, m)
		}
	}
	if due := f.due(known[2], 10); len(due.Messages) != 0 {
		f.Error("a message that was handed out is due at once")
	}
	f.db.Exec(f, "UPDATE client_messages SET due_us = due_us - 3600000000")
	if due := f.due(known[2], 10); len(due.Messages) != 1 || due.Messages[0].ID != got[0].ID || due.Messages[0].Attempts != 1 {
		f.Errorf("due after an hour: %+v", due.Messages)
	}
	f.must(f.s.CompleteMessages(f.ctx, refsOf(known[2], []identity.MessageID{got[0].ID})))
	again, err := f.s.AssignBroadcast(f.ctx, b.ID, known, instance(b), time.Hour)
	f.must(err)
	if len(again) != 2 || again[0].ClientID != known[1] || again[1].ClientID != known[3] {
		f.Errorf("assigned %+v, want those that have not had it", again)
	}
	if sent := f.active()[b.ID].Sent; sent != 4 {
		f.Errorf("sent %d, want 4", sent)
	}
	for _, clients := range [][]identity.ClientID{nil, known} {
		if none, err := f.s.AssignBroadcast(f.ctx, b.ID, clients, instance(b), time.Hour); err != nil || len(none) != 0 {
			f.Errorf("nobody left: %v, %v", none, err)
		}
	}
}

// testLimitRace lets two servers assign broadcasts at the same time to the same clients, in batches that never add up to
// the limit.
func testLimitRace(f *fixture) { // G-34, G-60
	const rounds, limit, batch = 15, 10, 4
	known := f.clients(40)
	var all []*store.Broadcast
	for range rounds {
		all = append(all, f.create(broadcast(limit)))
	}
	var mu sync.Mutex
	got := make(map[identity.BroadcastID]map[identity.ClientID]int)
	f.race(rounds, func(round int, s *sqlbase.Store, number int) {
		b, part := all[round], slices.Clone(known)
		if number == 1 {
			slices.Reverse(part)
		}
		for chunk := range slices.Chunk(part, batch) {
			assigned, err := s.AssignBroadcast(f.ctx, b.ID, chunk, instance(b), time.Hour)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				f.Error(err)
			}
			mu.Lock()
			if got[b.ID] == nil {
				got[b.ID] = make(map[identity.ClientID]int)
			}
			for _, p := range assigned {
				got[b.ID][p.ClientID]++
			}
			mu.Unlock()
		}
	})
	for _, b := range all {
		for id, n := range got[b.ID] {
			if n != 1 {
				f.Errorf("client %v got it %d times", id, n)
			}
		}
		sent := f.db.Count(f, "SELECT sent FROM broadcasts WHERE broadcast_id = ?", b.ID.Bytes())
		rows := f.db.Count(f, "SELECT COUNT(*) FROM broadcast_sent WHERE broadcast_id = ?", b.ID.Bytes())
		if len(got[b.ID]) != limit || sent != limit || rows != limit {
			f.Errorf("assigned to %d clients, counted %d, noted %d; want exactly %d", len(got[b.ID]), sent, rows, limit)
		}
	}
	if stored, err := f.s.PendingCount(f.ctx, known); err != nil || stored != rounds*limit {
		f.Errorf("%d messages stored, %v; want %d", stored, err, rounds*limit)
	}
	if n := len(f.active()); n != 0 {
		f.Errorf("%d broadcasts are active though their limits are reached", n)
	}
}

func testAssignInactive(f *fixture) {
	known := f.clients(2)
	b := f.create(broadcast(5))
	disable := func(id identity.ClientID) *fspb.Message { // between the first look and the transaction
		f.must(f.s.DisableBroadcasts(f.ctx, []identity.BroadcastID{b.ID}))
		return instance(b)(id)
	}
	if got, err := f.s.AssignBroadcast(f.ctx, b.ID, known, disable, time.Hour); !errors.Is(err, store.ErrNotFound) || len(got) != 0 {
		f.Errorf("disabled meanwhile: %v, %v; want ErrNotFound", got, err)
	}
	for _, id := range []identity.BroadcastID{b.ID, identity.NewBroadcastID()} {
		if _, err := f.s.AssignBroadcast(f.ctx, id, known, instance(b), time.Hour); !errors.Is(err, store.ErrNotFound) {
			f.Errorf("not active: %v, want ErrNotFound", err)
		}
	}
	if n, err := f.s.PendingCount(f.ctx, known); err != nil || n != 0 {
		f.Errorf("%d messages of a broadcast that is not active, %v", n, err)
	}
	wrong := func(identity.ClientID) *fspb.Message { return message(known[0], "x") }
	active := f.create(broadcast(5))
	if _, err := f.s.AssignBroadcast(f.ctx, active.ID, known[1:], wrong, time.Hour); !errors.Is(err, store.ErrInvalid) {
		f.Errorf("a message for another client: %v, want ErrInvalid", err)
	}
}
