package storetest

import (
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
)

var contactTests = []test{
	{name: "RegisterAndContact", run: testContact},
	{name: "ForeignKeyIsRefused_G44", run: testForeignKey},
	{name: "SameClientTwiceInOneBatch", run: testContactTwice},
	{name: "TwoServersRegisterOneClient_G37", run: testRegisterRace},
	{name: "TwoKeysRegisterOneClient_G44", run: testRegisterKeyRace},
	{name: "HostileContacts_G32", run: testHostileContacts},
	{name: "ManyContacts", run: testManyContacts},
	{name: "EndSessions", run: testEndSessions},
	{name: "ListContacts", run: testListContacts},
}

func (f *fixture) contact(u store.ContactUpdate) store.ContactOutcome {
	f.Helper()
	outcomes, err := f.s.RecordContacts(f.ctx, []store.ContactUpdate{u})
	f.must(err)
	return outcomes[0]
}

func (f *fixture) get(id identity.ClientID) *store.Client {
	f.Helper()
	got, err := f.s.GetClients(f.ctx, []identity.ClientID{id})
	f.must(err)
	return got[id]
}

func testContact(f *fixture) {
	id := identity.NewClientID()
	clock := &timestamppb.Timestamp{Seconds: -62135596800, Nanos: 999_999_999}
	first := f.contact(store.ContactUpdate{
		ClientID: id, Key: keyOf(id), ClaimedLabels: []string{"b", "a", "b"}, SentNonce: math.MaxUint64, ReceivedNonce: 0,
		Address: "[2001:db8::1]:7", Clock: clock, StreamingTo: "s1:80",
	})
	if first.Err != nil || !first.New {
		f.Fatalf("first contact: %+v", first)
	}
	c := first.Client
	if c.StreamingTo != "s1:80" || c.LastContactAddress != "[2001:db8::1]:7" || !proto.Equal(c.LastClock, clock) ||
		!recent(c.FirstContact) || c.LastContact.Before(c.FirstContact) || len(c.Labels) != 2 {
		f.Errorf("first contact gives %+v", c)
	}
	second := f.contact(store.ContactUpdate{ClientID: id, Key: keyOf(id), ClaimedLabels: []string{"ignored"}, SentNonce: 5, Address: "h:1"})
	if second.Err != nil || second.New {
		f.Fatalf("second contact: %+v", second)
	}
	if s := second.Client; s.StreamingTo != "" || s.LastClock != nil || !s.LastContact.After(c.LastContact) || !s.FirstContact.Equal(c.FirstContact) {
		f.Errorf("a poll after %+v gives %+v", c, s)
	}
	if got := f.labels(id); !slices.Equal(got, []string{"client:a", "client:b"}) {
		f.Errorf("labels %v, want those of the registration", got)
	}
	stored := f.get(id)
	if stored.LastClock != nil || stored.LastContactAddress != "h:1" || !stored.LastContact.Equal(second.Client.LastContact) {
		f.Errorf("stored %+v", stored)
	}
	if none, err := f.s.RecordContacts(f.ctx, nil); err != nil || len(none) != 0 {
		f.Errorf("no contacts: %v, %v", none, err)
	}
}

func testForeignKey(f *fixture) { // G-44
	id := f.client()
	before := f.get(id)
	outcomes, err := f.s.RecordContacts(f.ctx, []store.ContactUpdate{
		{ClientID: id, Key: []byte("another key"), Address: "evil:1", StreamingTo: "evil", ClaimedLabels: []string{"evil"}},
		{ClientID: id, Key: keyOf(id), Address: "good:1"},
	})
	f.must(err)
	if !errors.Is(outcomes[0].Err, store.ErrKeyMismatch) || outcomes[0].Client != nil || outcomes[1].Err != nil {
		f.Errorf("outcomes %+v, want the foreign key refused and its neighbour taken", outcomes)
	}
	after := f.get(id)
	if after.StreamingTo != "" || after.LastContactAddress != "good:1" || string(after.Key) != string(before.Key) || len(after.Labels) != 0 {
		f.Errorf("client after a foreign key: %+v", after)
	}
	contacts, err := f.s.ListContacts(f.ctx, id, time.Time{}, 10)
	f.must(err)
	if len(contacts) != 2 {
		f.Errorf("%d contacts, want the two with the right key", len(contacts))
	}
}

func testContactTwice(f *fixture) {
	id := identity.NewClientID()
	outcomes, err := f.s.RecordContacts(f.ctx, []store.ContactUpdate{
		{ClientID: id, Key: keyOf(id), SentNonce: 1, Address: "a:1"},
		{ClientID: id, Key: keyOf(id), SentNonce: 2, ReceivedNonce: 1, Address: "a:2", StreamingTo: "s"},
		{ClientID: id, Key: []byte("another key"), SentNonce: 3},
	})
	f.must(err)
	if !outcomes[0].New || outcomes[1].New || outcomes[1].Err != nil || !errors.Is(outcomes[2].Err, store.ErrKeyMismatch) {
		f.Fatalf("outcomes %+v", outcomes)
	}
	contacts, err := f.s.ListContacts(f.ctx, id, time.Time{}, 10)
	f.must(err)
	if len(contacts) != 2 || contacts[0].SentNonce != 1 || contacts[1].SentNonce != 2 || !contacts[1].Time.After(contacts[0].Time) {
		f.Errorf("contacts %+v, want both, at times of their own", contacts)
	}
	if c := f.get(id); c.StreamingTo != "s" || c.LastContactAddress != "a:2" {
		f.Errorf("client %+v, want the later contact", c)
	}
}

// race lets two servers do the same at the same time, several times over.
func (f *fixture) race(rounds int, do func(round int, server *sqlbase.Store, number int)) {
	servers := []*sqlbase.Store{f.s, f.db.Open(f, Options{})}
	for round := range rounds {
		var both sync.WaitGroup
		for i, s := range servers {
			both.Go(func() { do(round, s, i) })
		}
		both.Wait()
	}
}

func testRegisterRace(f *fixture) { // G-37
	const rounds, batch = 10, 20
	all := ids(rounds * batch)
	var mu sync.Mutex
	made := make(map[identity.ClientID]int)
	f.race(rounds, func(round int, s *sqlbase.Store, number int) {
		part := slices.Clone(all[round*batch : (round+1)*batch])
		if number == 1 {
			slices.Reverse(part) // in another order
		}
		var updates []store.ContactUpdate
		for _, id := range part {
			updates = append(updates, store.ContactUpdate{ClientID: id, Key: keyOf(id), SentNonce: uint64(number), ClaimedLabels: []string{"l"}})
		}
		outcomes, err := s.RecordContacts(f.ctx, updates)
		if err != nil {
			f.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for i, o := range outcomes {
			if o.Err != nil {
				f.Errorf("client %v: %v", part[i], o.Err)
			}
			if o.New {
				made[part[i]]++
			}
		}
	})
	for _, id := range all {
		contacts, err := f.s.ListContacts(f.ctx, id, time.Time{}, 10)
		f.must(err)
		if made[id] != 1 || len(contacts) != 2 || len(f.labels(id)) != 1 {
			f.Errorf("client %v: registered by %d servers, %d contacts", id, made[id], len(contacts))
		}
	}
}

func testRegisterKeyRace(f *fixture) { // G-44
	const rounds = 10
	all := ids(rounds)
	var mu sync.Mutex
	taken := make(map[identity.ClientID]int)
	f.race(rounds, func(round int, s *sqlbase.Store, number int) {
		id := all[round]
		outcomes, err := s.RecordContacts(f.ctx, []store.ContactUpdate{{ClientID: id, Key: []byte{byte(number)}}})
		if err != nil {
			f.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		switch err := outcomes[0].Err; {
		case err == nil:
			taken[id]++
		case !errors.Is(err, store.ErrKeyMismatch):
			f.Errorf("client %v: %v", id, err)
		}
	})
	for _, id := range all {
		contacts, err := f.s.ListContacts(f.ctx, id, time.Time{}, 10)
		f.must(err)
		if taken[id] != 1 || len(contacts) != 1 {
			f.Errorf("client %v: %d keys taken and %d contacts, want one", id, taken[id], len(contacts))
		}
	}
}

func testHostileContacts(f *fixture) { // G-32
	id, empty, big := identity.NewClientID(), identity.NewClientID(), identity.NewClientID()
	labels := []string{"", "ok", strings.Repeat("x", store.MaxName+1), strings.Repeat("x", 1<<20), "\x00'\"\\;--", "日本語"}
	for range 2 * store.MaxLabels {
		labels = append(labels, identity.NewMessageID().String())
	}
	outcomes, err := f.s.RecordContacts(f.ctx, []store.ContactUpdate{
		{ClientID: empty},
		{ClientID: big, Key: make([]byte, 1<<20)},
		{ClientID: id, Key: []byte("'; DROP TABLE clients; --\x00\x1a\\"), ClaimedLabels: labels,
			Address: strings.Repeat("a", 10_000), StreamingTo: strings.Repeat("é", 10_000)},
	})
	f.must(err)
	if !errors.Is(outcomes[0].Err, store.ErrInvalid) || !errors.Is(outcomes[1].Err, store.ErrInvalid) || outcomes[2].Err != nil {
		f.Fatalf("outcomes %+v", outcomes)
	}
	got := f.labels(id)
	if len(got) != store.MaxLabels || !slices.Contains(got, "client:日本語") || !slices.Contains(got, "client:\x00'\"\\;--") {
		f.Errorf("%d labels, want %d with the odd ones", len(got), store.MaxLabels)
	}
	if c := f.get(id); string(c.Key) != "'; DROP TABLE clients; --\x00\x1a\\" || len(c.StreamingTo) != 254 {
		f.Errorf("key %q, streaming to %d bytes", c.Key, len(c.StreamingTo))
	}
}

func testManyContacts(f *fixture) {
	known := f.clients(1300)
	var updates []store.ContactUpdate
	for i, id := range known {
		updates = append(updates, store.ContactUpdate{ClientID: id, Key: keyOf(id), SentNonce: uint64(i), StreamingTo: "s"})
	}
	outcomes, err := f.s.RecordContacts(f.ctx, updates)
	f.must(err)
	for i, o := range outcomes {
		if o.Err != nil || o.New || o.Client.ID != known[i] {
			f.Fatalf("outcome %d: %+v", i, o)
		}
	}
	if n := f.db.Count(f, "SELECT COUNT(*) FROM client_contacts"); n != 2600 {
		f.Errorf("%d contacts, want 2600", n)
	}
}

func testEndSessions(f *fixture) {
	known := f.clients(3)
	for i, to := range []string{"s1", "s1", "s2"} {
		f.contact(store.ContactUpdate{ClientID: known[i], Key: keyOf(known[i]), StreamingTo: to})
	}
	f.must(f.s.EndSessions(f.ctx, []store.SessionEnd{
		{ClientID: known[0], StreamingTo: "s1"}, {ClientID: known[2], StreamingTo: "s1"},
		{ClientID: identity.NewClientID(), StreamingTo: "s1"}, {ClientID: known[1], StreamingTo: ""},
	}))
	for i, want := range []string{"", "s1", "s2"} {
		if got := f.get(known[i]).StreamingTo; got != want {
			f.Errorf("client %d streams to %q, want %q", i, got, want)
		}
	}
	f.must(f.s.EndSessions(f.ctx, nil))
}

func testListContacts(f *fixture) {
	id := f.client()
	for n := range 6 {
		f.contact(store.ContactUpdate{ClientID: id, Key: keyOf(id), SentNonce: 1 << 63, ReceivedNonce: uint64(n), Address: "h:1"})
	}
	f.clients(2)
	var all []store.Contact
	var after time.Time
	for {
		page, err := f.s.ListContacts(f.ctx, id, after, 3)
		f.must(err)
		if len(page) == 0 {
			break
		}
		all = append(all, page...)
		after = page[len(page)-1].Time
	}
	if len(all) != 7 {
		f.Fatalf("%d contacts, want 7", len(all))
	}
	for i := range all[1:] {
		c := all[i+1]
		if !c.Time.After(all[i].Time) || c.ReceivedNonce != uint64(i) || c.SentNonce != 1<<63 || c.Address != "h:1" {
			f.Errorf("contact %d: %+v after %v", i+1, c, all[i].Time)
		}
	}
	if none, err := f.s.ListContacts(f.ctx, identity.NewClientID(), time.Time{}, 5); err != nil || len(none) != 0 {
		f.Errorf("an unknown client: %v, %v", none, err)
	}
}
