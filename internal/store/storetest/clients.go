package storetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

var clientTests = []test{
	{name: "GetClients", run: testGetClients},
	{name: "ListClients", run: testListClients},
	{name: "ListClientIDs", run: testListClientIDs},
	{name: "LastSeen", run: testLastSeen},
	{name: "LastSeenAfterACrash", run: testLastSeenAfterCrash},
	{name: "SetClientInfo", run: testSetClientInfo},
	{name: "SetClientInfoIsIdempotent_G37", run: testSetClientInfoTwice},
	{name: "SetClientInfoOfTwoServers_G37", run: testSetClientInfoRace},
	{name: "HostileClientInfo_G32", run: testHostileClientInfo},
	{name: "Blacklist", run: testBlacklist},
}

func testGetClients(f *fixture) {
	known := f.clients(3)
	f.allNil(f.s.SetClientInfo(f.ctx, []store.ClientInfo{{ClientID: known[0], Labels: []string{"linux", "amd64"}}}))
	got, err := f.s.GetClients(f.ctx, []identity.ClientID{known[0], identity.NewClientID(), known[1], known[0], {}})
	f.must(err)
	if len(got) != 2 || got[known[0]] == nil || got[known[1]] == nil {
		f.Fatalf("%d clients, want the two that were asked for and are known", len(got))
	}
	c := got[known[0]]
	if string(c.Key) != string(keyOf(known[0])) || c.ID != known[0] || c.Blacklisted || !recent(c.FirstContact) {
		f.Errorf("client %+v", c)
	}
	// G-27: labels are returned for clients that are asked for by ID.
	want := []store.Label{{Service: "client", Label: "amd64"}, {Service: "client", Label: "linux"}}
	if diff := cmp.Diff(want, c.Labels); diff != "" {
		f.Errorf("labels (-want +got):\n%s", diff)
	}
	if none, err := f.s.GetClients(f.ctx, nil); err != nil || len(none) != 0 {
		f.Errorf("no IDs: %v, %v", none, err)
	}
	if many, err := f.s.GetClients(f.ctx, append(ids(1200), known...)); err != nil || len(many) != 3 {
		f.Errorf("many IDs: %d clients, %v", len(many), err)
	}
}

func testListClients(f *fixture) {
	known := f.clients(7)
	slices.SortFunc(known, compareIDs)
	f.allNil(f.s.SetClientInfo(f.ctx, []store.ClientInfo{{ClientID: known[2], Labels: []string{"x"}}}))
	var got []identity.ClientID
	var after identity.ClientID
	for {
		page, err := f.s.ListClients(f.ctx, after, 3)
		f.must(err)
		if len(page) == 0 {
			break
		}
		for _, c := range page {
			got = append(got, c.ID)
			if labelled := len(c.Labels) == 1; labelled != (c.ID == known[2]) {
				f.Errorf("client %v has labels %v", c.ID, c.Labels)
			}
		}
		after = page[len(page)-1].ID
	}
	if !slices.Equal(got, known) {
		f.Errorf("pages give %v, want %v", got, known)
	}
}

func compareIDs(a, b identity.ClientID) int { return slices.Compare(a[:], b[:]) }

func testListClientIDs(f *fixture) {
	known := f.clients(5)
	slices.SortFunc(known, compareIDs)
	_, err := f.s.BlacklistClient(f.ctx, known[1])
	f.must(err)
	f.db.Exec(f, "UPDATE clients SET last_contact_us = 1000000 WHERE client_id = ?", known[3].Bytes())
	for _, tc := range []struct {
		name        string
		after       identity.ClientID
		limit       int
		blacklisted bool
		since       time.Time
		want        []identity.ClientID
	}{
		{"all", identity.ClientID{}, 10, true, time.Time{}, known},
		{"not blacklisted", identity.ClientID{}, 10, false, time.Time{}, []identity.ClientID{known[0], known[2], known[3], known[4]}},
		{"page", known[0], 2, true, time.Time{}, known[1:3]},
		{"later than", identity.ClientID{}, 10, true, time.Unix(1, 0), []identity.ClientID{known[0], known[1], known[2], known[4]}},
		{"not later than itself but before", identity.ClientID{}, 10, true, time.UnixMicro(999_999), known},
		{"far future", identity.ClientID{}, 10, true, time.Now().Add(time.Hour), nil},
	} {
		got, err := f.s.ListClientIDs(f.ctx, tc.after, tc.limit, tc.blacklisted, tc.since)
		if err != nil || !slices.Equal(got, tc.want) {
			f.Errorf("%s: %v, %v; want %v", tc.name, got, err, tc.want)
		}
	}
}

// stream starts a session of a client.
func (f *fixture) stream(id identity.ClientID, to string) {
	f.Helper()
	if o := f.contact(store.ContactUpdate{ClientID: id, Key: keyOf(id), StreamingTo: to}); o.Err != nil {
		f.Fatal(o.Err)
	}
}

// seen is when a client was seen last, which both ways to read it have to agree on.
func (f *fixture) seen(id identity.ClientID) time.Time {
	f.Helper()
	at := f.get(id).LastSeen
	list, err := f.s.ListClients(f.ctx, identity.ClientID{}, 100)
	f.must(err)
	for _, c := range list {
		if c.ID == id && !c.LastSeen.Equal(at) {
			f.Errorf("client %v was seen at %v by ID, at %v in the list", id, at, c.LastSeen)
		}
	}
	return at
}

// seenAfter are the clients that were seen later than a time.
func (f *fixture) seenAfter(t time.Time) []identity.ClientID {
	f.Helper()
	got, err := f.s.ListClientIDs(f.ctx, identity.ClientID{}, 100, true, t)
	f.must(err)
	return got
}

// A client with a session is there as long as its server is, without a write for it.
func testLastSeen(f *fixture) {
	holder := store.ServerInfo{ID: "a", Address: "h:1"}
	beat := func() time.Time {
		now, err := f.s.Heartbeat(f.ctx, holder)
		f.must(err)
		return now
	}
	beat()
	held, elsewhere, polling := f.client(), f.client(), f.client()
	f.stream(held, "h:1")
	f.stream(elsewhere, "unmodified:1") // a server without heartbeats
	contact := f.get(held).LastContact
	for _, id := range []identity.ClientID{held, elsewhere, polling} {
		if got, want := f.seen(id), f.get(id).LastContact; !got.Equal(want) {
			f.Errorf("seen at %v, want the contact at %v", got, want)
		}
	}
	f.stream(elsewhere, "unmodified:1")
	since := f.get(elsewhere).LastContact
	at := beat()
	if got := f.seen(held); !got.Equal(at) || !got.After(contact) {
		f.Errorf("seen at %v, want the heartbeat at %v", got, at)
	}
	if got := f.get(held).LastContact; !got.Equal(contact) {
		f.Errorf("the last contact went from %v to %v", contact, got)
	}
	if got := f.seen(elsewhere); !got.Equal(since) {
		f.Errorf("seen at %v with a server that says nothing, want the contact at %v", got, since)
	}
	if got := f.seenAfter(since); !slices.Equal(got, []identity.ClientID{held}) {
		f.Errorf("later than %v: %v, want only the one with a session", since, got)
	}
	if got := f.seenAfter(at); len(got) != 0 {
		f.Errorf("later than the heartbeat: %v", got)
	}
	f.must(f.s.EndSessions(f.ctx, []store.SessionEnd{{ClientID: held, StreamingTo: "h:1"}}))
	beat()
	if c := f.get(held); c.LastContact.Before(at) || !c.LastSeen.Equal(c.LastContact) {
		f.Errorf("after its session the client %+v was not seen at its end", c)
	}
}

// A server that comes back at the address of a dead one holds none of its sessions.
func testLastSeenAfterCrash(f *fixture) {
	beat := func(id string, uptime time.Duration) time.Time {
		now, err := f.s.Heartbeat(f.ctx, store.ServerInfo{ID: id, Address: "h:1", Uptime: uptime})
		f.must(err)
		return now
	}
	beat("dead", 0)
	gone, back := f.client(), f.client()
	f.stream(gone, "h:1")
	f.stream(back, "h:1")
	last := beat("dead", time.Minute)
	beat("new", 0)
	f.stream(back, "h:1")
	now := beat("new", time.Second)
	if got := f.seen(gone); !got.Equal(last) {
		f.Errorf("seen at %v, want the last heartbeat of its server at %v", got, last)
	}
	if got := f.seen(back); !got.Equal(now) {
		f.Errorf("seen at %v, want the heartbeat of the new server at %v", got, now)
	}
	if got := f.seenAfter(last); !slices.Equal(got, []identity.ClientID{back}) {
		f.Errorf("later than %v: %v, want only the one that came back", last, got)
	}
	f.must(f.s.RemoveServer(f.ctx, "dead"))
	if got, want := f.seen(gone), f.get(gone).LastContact; !got.Equal(want) {
		f.Errorf("seen at %v with a server that is forgotten, want the contact at %v", got, want)
	}
}

func (f *fixture) labels(id identity.ClientID) (texts []string) {
	f.Helper()
	got, err := f.s.GetClients(f.ctx, []identity.ClientID{id})
	f.must(err)
	for _, label := range got[id].Labels {
		texts = append(texts, label.Service+":"+label.Label)
	}
	return texts
}

func testSetClientInfo(f *fixture) {
	id, stranger := f.client(), identity.NewClientID()
	f.db.Exec(f, "INSERT INTO client_labels (client_id, service, label) VALUES (?, 'other', 'kept')", id.Bytes())
	services := []store.ClientService{{Name: "b", Signature: []byte{0, 1, 255}}, {Name: "a"}}
	errs, err := f.s.SetClientInfo(f.ctx, []store.ClientInfo{
		{ClientID: id, Labels: []string{"one", "two", "one"}, Services: services},
		{ClientID: stranger, Labels: []string{"one"}},
	})
	f.must(err)
	if errs[0] != nil || !errors.Is(errs[1], store.ErrUnknownClient) {
		f.Errorf("errors %v, want only the stranger's", errs)
	}
	if got, want := f.labels(id), []string{"client:one", "client:two", "other:kept"}; !slices.Equal(got, want) {
		f.Errorf("labels %v, want %v", got, want)
	}
	// G-47: what runs where.
	got, err := f.s.ListClientServices(f.ctx, id)
	f.must(err)
	if diff := cmp.Diff([]store.ClientService{{Name: "a", Signature: []byte{}}, services[0]}, got); diff != "" {
		f.Errorf("services (-want +got):\n%s", diff)
	}
	f.allNil(f.s.SetClientInfo(f.ctx, []store.ClientInfo{
		{ClientID: id, Labels: []string{"two", "Two", "two "}, Services: []store.ClientService{{Name: "a", Signature: []byte("new")}}},
	}))
	if got, want := f.labels(id), []string{"client:Two", "client:two", "client:two ", "other:kept"}; !slices.Equal(got, want) {
		f.Errorf("labels %q, want %q: names differ in case and in spaces", got, want)
	}
	got, err = f.s.ListClientServices(f.ctx, id)
	f.must(err)
	if diff := cmp.Diff([]store.ClientService{{Name: "a", Signature: []byte("new")}}, got); diff != "" {
		f.Errorf("services (-want +got):\n%s", diff)
	}
	f.allNil(f.s.SetClientInfo(f.ctx, []store.ClientInfo{{ClientID: id}}))
	if got := f.labels(id); !slices.Equal(got, []string{"other:kept"}) {
		f.Errorf("labels %v after an empty report", got)
	}
}

func testSetClientInfoTwice(f *fixture) { // G-37
	id := f.client()
	info := store.ClientInfo{ClientID: id, Labels: []string{"a", "b"}, Services: []store.ClientService{{Name: "s"}}}
	for range 3 {
		f.allNil(f.s.SetClientInfo(f.ctx, []store.ClientInfo{info}))
	}
	later := store.ClientInfo{ClientID: id, Labels: []string{"c"}}
	f.allNil(f.s.SetClientInfo(f.ctx, []store.ClientInfo{info, later}))
	if got := f.labels(id); !slices.Equal(got, []string{"client:c"}) {
		f.Errorf("labels %v, want those of the later report", got)
	}
}

func testSetClientInfoRace(f *fixture) { // G-37
	known := f.clients(20)
	other := f.db.Open(f, Options{})
	var servers sync.WaitGroup
	for _, s := range []interface {
		SetClientInfo(ctx context.Context, infos []store.ClientInfo) ([]error, error)
	}{f.s, other} {
		servers.Go(func() {
			for round := range 5 {
				var infos []store.ClientInfo
				for _, id := range known {
					infos = append(infos, store.ClientInfo{ClientID: id, Labels: []string{"same", strings.Repeat("x", 1+round)}})
				}
				f.allNil(s.SetClientInfo(f.ctx, infos))
			}
		})
	}
	servers.Wait()
	for _, id := range known {
		if got := f.labels(id); len(got) != 2 || !slices.Contains(got, "client:same") {
			f.Errorf("labels %v, want one report's", got)
		}
	}
}

func testHostileClientInfo(f *fixture) { // G-32
	id := f.client()
	var labels []string
	var services []store.ClientService
	for range 3 * store.MaxLabels {
		labels = append(labels, identity.NewMessageID().String())
		services = append(services, store.ClientService{Name: identity.NewMessageID().String()})
	}
	long := strings.Repeat("é", store.MaxName) // fits in characters
	labels = append([]string{"", strings.Repeat("l", store.MaxName+1), strings.Repeat("l", 1<<20), long}, labels...)
	services = append([]store.ClientService{{}, {Name: long + "x"}, {Name: "big", Signature: make([]byte, 1<<20)}}, services...)
	f.allNil(f.s.SetClientInfo(f.ctx, []store.ClientInfo{{ClientID: id, Labels: labels, Services: services}}))
	got := f.labels(id)
	if len(got) != store.MaxLabels || !slices.Contains(got, "client:"+long) {
		f.Errorf("%d labels, want %d with the longest that fits", len(got), store.MaxLabels)
	}
	stored, err := f.s.ListClientServices(f.ctx, id)
	f.must(err)
	if len(stored) != store.MaxLabels {
		f.Errorf("%d services, want %d", len(stored), store.MaxLabels)
	}
}

func testBlacklist(f *fixture) {
	id := f.client()
	_, err := f.s.RecordContacts(f.ctx, []store.ContactUpdate{{ClientID: id, Key: keyOf(id), StreamingTo: "server:1"}})
	f.must(err)
	for range 2 {
		to, err := f.s.BlacklistClient(f.ctx, id)
		if err != nil || to != "server:1" {
			f.Errorf("BlacklistClient = %q, %v; want the server of its session", to, err)
		}
	}
	stranger := identity.NewClientID()
	if to, err := f.s.BlacklistClient(f.ctx, stranger); err != nil || to != "" {
		f.Errorf("an unknown client: %q, %v", to, err)
	}
	got, err := f.s.GetClients(f.ctx, []identity.ClientID{id, stranger})
	f.must(err)
	if len(got) != 1 || !got[id].Blacklisted {
		f.Errorf("clients %v, want just the one, blacklisted", got)
	}
}
