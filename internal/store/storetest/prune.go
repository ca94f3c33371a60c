package storetest

import (
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
)

var pruneTests = []test{
	{name: "ByAge_G22", run: testPrune},
	{name: "InBoundedBatches_G22", run: testPruneBatches},
	{name: "TwoServersPrune_G22", run: testPruneRace},
	{name: "TooManyDeadLetters_G22", run: testPruneDead},
	{name: "EndedBroadcasts_G22", run: testPruneBroadcasts},
	{name: "LostClients_G22", run: testPruneClients},
	{name: "AbandonedUploads", run: testPruneFiles},
}

const hour = time.Hour

// pruneAll prunes until nothing is left to delete.
func (f *fixture) pruneAll(s *sqlbase.Store, keep store.Retention, limit int) (total int64) {
	f.Helper()
	for {
		n, err := s.Prune(f.ctx, keep, limit)
		f.must(err)
		if n == 0 {
			return total
		}
		total += n
	}
}

// aged are the tables whose rows leave by their age.
var aged = map[string]string{
	"client_contacts": "contact_us", "message_results": "processed_us", "dead_letters": "failed_us",
	"resource_usage": "server_us", "servers": "heartbeat_us", "ticket_keys": "created_us",
}

// ageAll makes what is stored two hours older.
func (f *fixture) ageAll() {
	f.Helper()
	for table, column := range aged {
		f.db.Exec(f, "UPDATE "+table+" SET "+column+" = "+column+" - 7200000000")
	}
}

// fill stores a row in each of the aged tables.
func (f *fixture) fill() {
	f.Helper()
	id := f.client() // and a contact
	m := message(id, "service")
	f.insert(m)
	f.must(f.s.CompleteMessages(f.ctx, refsOf(id, []identity.MessageID{idOf(m)})))
	f.bury(backlogOf(1, "a")) // a result too
	f.allNil(f.s.AddResourceUsage(f.ctx, []store.ResourceUsage{{ClientID: id}}))
	_, err := f.s.Heartbeat(f.ctx, store.ServerInfo{ID: identity.NewClientID().String()})
	f.must(err)
	var key store.TicketKey
	rand.Read(key.ID[:])
	f.must(f.s.AddTicketKey(f.ctx, key))
}

func testPrune(f *fixture) { // G-22
	f.fill()
	f.ageAll()
	f.fill()
	if n := f.pruneAll(f.s, store.Retention{}, 100); n != 0 {
		f.Errorf("%d rows deleted without a retention", n)
	}
	keep := store.Retention{Contacts: hour, Results: hour, DeadLetters: hour, ResourceUsage: hour, Servers: hour, TicketKeys: hour}
	if n := f.pruneAll(f.s, keep, 100); n != 7 {
		f.Errorf("%d rows deleted, want the 7 old ones", n)
	}
	for table := range aged {
		want := int64(1)
		if table == "message_results" {
			want = 2
		}
		if n := f.db.Count(f, "SELECT COUNT(*) FROM "+table); n != want {
			f.Errorf("%s has %d rows, want %d young ones", table, n, want)
		}
	}
	if store.DefaultRetention().Contacts <= 0 || store.DefaultRetention().Results <= 0 {
		f.Error("retention must be on by default")
	}
}

func (f *fixture) contacts(n int) {
	f.Helper()
	id := f.client()
	var updates []store.ContactUpdate
	for range n - 1 {
		updates = append(updates, store.ContactUpdate{ClientID: id, Key: keyOf(id)})
	}
	_, err := f.s.RecordContacts(f.ctx, updates)
	f.must(err)
}

func testPruneBatches(f *fixture) { // G-22
	f.contacts(100)
	f.ageAll()
	keep := store.Retention{Contacts: hour}
	oldest := f.db.Count(f, "SELECT MIN(contact_us) FROM client_contacts")
	for range 3 {
		if n, err := f.s.Prune(f.ctx, keep, 30); err != nil || n != 30 {
			f.Errorf("deleted %d, %v; want a batch of 30", n, err)
		}
		next := f.db.Count(f, "SELECT MIN(contact_us) FROM client_contacts")
		if next <= oldest {
			f.Error("the oldest must go first")
		}
		oldest = next
	}
	for _, want := range []int64{10, 0} {
		if n, err := f.s.Prune(f.ctx, keep, 30); err != nil || n != want {
			f.Errorf("deleted %d, %v; want %d", n, err, want)
		}
	}
}

func testPruneDead(f *fixture) { // G-22
	large := backlogOf(1, "a")
	large[0].Message.Data.Value = make([]byte, 10_000)
	var moments []identity.MessageID // each of its own
	for i := range 25 {
		letter := backlogOf(1, "b")
		if i == 3 {
			letter = large
		}
		f.bury(letter)
		f.db.Exec(f, "UPDATE dead_letters SET failed_us = failed_us - 1000")
		moments = append(moments, letter[0].ID)
	}
	f.db.Exec(f, "UPDATE message_results SET processed_us = processed_us - 7200000000")
	left := func() int64 { return f.db.Count(f, "SELECT COUNT(*) FROM dead_letters") }
	for _, tc := range []struct {
		keep  store.Retention
		limit int
		want  int64
	}{
		{store.Retention{}, 10, 25},
		{store.Retention{MaxDeadLetters: 25, MaxDeadLetterBytes: 1 << 20}, 10, 25},
		{store.Retention{MaxDeadLetters: 23}, 10, 23},
		{store.Retention{MaxDeadLetterBytes: 10_000}, 10, 21}, // the large one and those before it are too much
		{store.Retention{MaxDeadLetters: 5}, 2, 5},
	} {
		before := left()
		if n := f.pruneAll(f.s, tc.keep, tc.limit); n != before-tc.want || left() != tc.want {
			f.Errorf("%+v: %d deleted and %d left, want %d left", tc.keep, n, left(), tc.want)
		}
	}
	got := f.dead("b")
	for _, id := range moments[20:] {
		if !slices.Contains(got, id) {
			f.Errorf("the oldest must go first; one of the newest is gone")
		}
	}
}

func testPruneRace(f *fixture) { // G-22
	f.contacts(400)
	f.ageAll()
	f.race(1, func(_ int, s *sqlbase.Store, number int) {
		var workers sync.WaitGroup
		workers.Go(func() { f.pruneAll(s, store.Retention{Contacts: hour}, 20) })
		workers.Go(func() {
			id := identity.NewClientID()
			for n := range 30 { // contacts go on
				if _, err := s.RecordContacts(f.ctx, []store.ContactUpdate{{ClientID: id, Key: keyOf(id), SentNonce: uint64(n)}}); err != nil {
					f.Error(err)
				}
			}
		})
		workers.Wait()
	})
	if n := f.db.Count(f, "SELECT COUNT(*) FROM client_contacts"); n != 60 {
		f.Errorf("%d contacts left, want the 60 young ones", n)
	}
}

func testPruneBroadcasts(f *fixture) { // G-22
	known := f.clients(20)
	ended, active := f.create(broadcast(20)), f.create(broadcast(store.UnlimitedBroadcast))
	ended.RequiredLabels = []store.Label{{Service: "client", Label: "x"}}
	for _, b := range []*store.Broadcast{ended, active} {
		_, err := f.s.AssignBroadcast(f.ctx, b.ID, known, instance(b), hour)
		f.must(err)
	}
	keep := store.Retention{Broadcasts: hour}
	if n := f.pruneAll(f.s, keep, 8); n != 0 {
		f.Errorf("deleted %d rows of young broadcasts", n)
	}
	f.db.Exec(f, "UPDATE broadcasts SET created_us = created_us - 7200000000")
	if n := f.pruneAll(f.s, keep, 8); n != 21 {
		f.Errorf("deleted %d rows, want 21", n)
	}
	if n := f.db.Count(f, "SELECT COUNT(*) FROM broadcast_sent"); n != 20 || f.active()[active.ID] == nil {
		f.Errorf("%d rows say who had a broadcast, want those of the active one", n)
	}
}

func testPruneClients(f *fixture) { // G-22
	known := f.clients(4)
	lost, present, blacklisted := known[0], known[1], known[2]
	m := message(lost, "service")
	f.insert(m, message(present, "service"))
	f.allNil(f.s.SetClientInfo(f.ctx, []store.ClientInfo{{ClientID: lost, Labels: []string{"l"}, Services: []store.ClientService{{Name: "s"}}}}))
	f.allNil(f.s.AddResourceUsage(f.ctx, []store.ResourceUsage{{ClientID: lost}}))
	_, err := f.s.BlacklistClient(f.ctx, blacklisted)
	f.must(err)
	for _, id := range []identity.ClientID{lost, blacklisted} {
		f.db.Exec(f, "UPDATE clients SET last_contact_us = last_contact_us - 7200000000 WHERE client_id = ?", id.Bytes())
	}
	if n := f.pruneAll(f.s, store.Retention{}, 10); n != 0 {
		f.Errorf("deleted %d rows though clients are kept", n)
	}
	f.pruneAll(f.s, store.Retention{Clients: hour}, 10)
	got, err := f.s.GetClients(f.ctx, known)
	f.must(err)
	if len(got) != 3 || got[lost] != nil {
		f.Errorf("%d clients left, want all but the lost one", len(got))
	}
	for _, table := range []string{"client_labels", "client_services", "client_contacts", "resource_usage", "client_messages"} {
		if n := f.db.Count(f, "SELECT COUNT(*) FROM "+table+" WHERE client_id = ?", lost.Bytes()); n != 0 {
			f.Errorf("%s has %d rows of the lost client", table, n)
		}
	}
	if result := f.status(idOf(m)).Result; result == nil || !result.Failed {
		f.Errorf("result %+v of a message to the lost client", result)
	}
}

func testPruneFiles(f *fixture) {
	f.put("s", "n", content(100))
	insert := "INSERT INTO file_chunks (service, name, generation, chunk, data) VALUES ('s', 'n', ?, ?, ?)"
	old, young := make([]byte, 16), make([]byte, 16)
	for i := range young {
		young[i] = 0x7f
	}
	for chunk := range 3 {
		f.db.Exec(f, insert, old, chunk, []byte("x"))
		f.db.Exec(f, insert, young, chunk, []byte("x"))
	}
	if n := f.pruneAll(f.s, store.Retention{}, 10); n != 3 {
		f.Errorf("deleted %d chunks, want the 3 of the upload that was abandoned", n)
	}
	if got := f.readFile("s", "n"); len(got) != 100 {
		f.Errorf("the file has %d bytes left", len(got))
	}
}
