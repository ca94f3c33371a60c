package storetest

import (
	"crypto/rand"
	"errors"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/farspeak/farspeak/internal/store"
)

var serverTests = []test{
	{name: "Heartbeat", run: testServers},
	{name: "HandoverKeys", run: testHandoverKeys},
	{name: "TicketKeys", run: testTicketKeys},
}

func testServers(f *fixture) {
	a := store.ServerInfo{ID: "a", Address: "h:1", Version: "1.0", Sessions: 7}
	b := store.ServerInfo{ID: "b", Address: "h:2", Draining: true}
	for _, info := range []*store.ServerInfo{&a, &b, &a} {
		info.Sessions++
		now, err := f.s.Heartbeat(f.ctx, *info)
		f.must(err)
		if !recent(now) {
			f.Errorf("the store's time is %v", now)
		}
		info.Heartbeat = now
	}
	list, err := f.s.ListServers(f.ctx, time.Minute)
	f.must(err)
	if diff := cmp.Diff([]store.ServerInfo{a, b}, list); diff != "" {
		f.Errorf("servers (-want +got):\n%s", diff)
	}
	f.db.Exec(f, "UPDATE servers SET heartbeat_us = heartbeat_us - 120000000 WHERE server_id = 'a'")
	list, err = f.s.ListServers(f.ctx, time.Minute)
	if err != nil || len(list) != 1 || list[0].ID != "b" {
		f.Errorf("servers %+v, %v; want only the one with a heartbeat", list, err)
	}
	for range 2 {
		f.must(f.s.RemoveServer(f.ctx, "b"))
	}
	if list, err = f.s.ListServers(f.ctx, time.Hour); err != nil || len(list) != 1 {
		f.Errorf("servers %+v, %v", list, err)
	}
}

// testHandoverKeys lets servers take the place of each other at one address.
func testHandoverKeys(f *fixture) {
	expect := func(address, want string) {
		f.Helper()
		if key, err := f.s.HandoverKey(f.ctx, address); err != nil || string(key) != want {
			f.Errorf("key %q of %s, %v; want %q", key, address, err, want)
		}
	}
	beat := func(info store.ServerInfo) {
		f.Helper()
		_, err := f.s.Heartbeat(f.ctx, info)
		f.must(err)
	}
	expect("h:1", "")
	old := store.ServerInfo{ID: "old", Address: "h:1", Uptime: time.Hour, HandoverKey: []byte("key of the old")}
	beat(old)
	beat(store.ServerInfo{ID: "other", Address: "h:2"})
	expect("h:1", "key of the old")
	expect("h:2", "")
	beat(store.ServerInfo{ID: "new", Address: "h:1", HandoverKey: []byte("key of the new")})
	beat(old)
	expect("h:1", "key of the new")
	f.must(f.s.RemoveServer(f.ctx, "new"))
	expect("h:1", "key of the old")
}

func testTicketKeys(f *fixture) {
	var keys []store.TicketKey
	for range 4 {
		var key store.TicketKey
		rand.Read(key.ID[:])
		rand.Read(key.Key[:])
		f.must(f.s.AddTicketKey(f.ctx, key))
		keys = append(keys, key)
	}
	if err := f.s.AddTicketKey(f.ctx, keys[0]); !errors.Is(err, store.ErrConflict) {
		f.Errorf("a taken ID: %v, want ErrConflict", err)
	}
	got, err := f.s.TicketKeys(f.ctx, 3)
	f.must(err)
	if len(got) != 3 {
		f.Fatalf("%d keys, want 3", len(got))
	}
	for i, key := range got {
		want := keys[3-i]
		if key.ID != want.ID || key.Key != want.Key || !recent(key.Created) {
			f.Errorf("key %d is %x, want the newest first", i, key.ID)
		}
	}
}
