package admin_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/storetest"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// listed are the clients of an answer by ID.
func (f *fixture) listed(ids ...[]byte) map[identity.ClientID]*serverpb.Client {
	f.Helper()
	answer, err := f.admin.ListClients(f.ctx, &serverpb.ListClientsRequest{ClientIds: ids})
	f.must(err)
	byID := make(map[identity.ClientID]*serverpb.Client)
	for _, c := range answer.Clients {
		byID[identity.ClientID(c.ClientId)] = c
	}
	if len(byID) != len(answer.Clients) {
		f.Errorf("%d clients, %d different ones", len(answer.Clients), len(byID))
	}
	return byID
}

func TestListClients(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		if got := f.listed(); len(got) != 0 {
			f.Errorf("%v of an empty store", got)
		}
		began := time.Now().Add(-time.Minute)
		a, b := f.register("server1:8080", "linux", "amd64"), f.register("")
		f.contact(b, "")
		_, err := f.admin.BlacklistClient(f.ctx, &serverpb.BlacklistClientRequest{ClientId: b.Bytes()})
		f.must(err)

		all := f.listed()
		if len(all) != 2 {
			f.Fatalf("listed %v", all)
		}
		got := all[a]
		if got.LastContactTime.AsTime().Before(began) {
			f.Errorf("last contact %v", got.LastContactTime)
		}
		want := &serverpb.Client{
			ClientId: a.Bytes(), LastContactTime: got.LastContactTime, LastContactAddress: "192.0.2.1:4321",
			LastContactStreamingTo: "server1:8080", LastClock: &timestamppb.Timestamp{Seconds: 12, Nanos: 34},
			Labels: []*fspb.Label{{ServiceName: "client", Label: "amd64"}, {ServiceName: "client", Label: "linux"}},
		}
		slices.SortFunc(got.Labels, func(a, b *fspb.Label) int { return strings.Compare(a.Label, b.Label) })
		if !proto.Equal(got, want) {
			f.Errorf("listed %v, want %v", got, want)
		}
		if b := all[b]; !b.Blacklisted || b.LastContactStreamingTo != "" {
			f.Errorf("listed %v, want it blacklisted and nowhere", b)
		}

		// Unknown, empty and repeated IDs.
		unknown := identity.NewClientID()
		some := f.listed(a.Bytes(), unknown.Bytes(), nil, a.Bytes())
		if len(some) != 1 || len(some[a].GetLabels()) != 2 {
			f.Errorf("listed %v", some)
		}
		if got := f.listed(nil); len(got) != 0 {
			f.Errorf("an empty ID lists %v", got)
		}
		_, err = f.admin.ListClients(f.ctx, &serverpb.ListClientsRequest{ClientIds: [][]byte{a.Bytes(), {1, 2}}})
		wantCode(f, err, codes.InvalidArgument)
	})
}

// Users tell by the last contact who is there. An open session counts, however long ago it began.
func TestClientWithASessionIsThere(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		info := store.ServerInfo{ID: "s", Address: "server1:8080"}
		_, err := f.real.Heartbeat(f.ctx, info)
		f.must(err)
		there, polling := f.register(info.Address), f.register("")
		since := timestamppb.New(f.listed()[polling].LastContactTime.AsTime())
		now, err := f.real.Heartbeat(f.ctx, info)
		f.must(err)
		for name, list := range map[string]map[identity.ClientID]*serverpb.Client{"all": f.listed(), "by ID": f.listed(there.Bytes())} {
			if got := list[there].GetLastContactTime().AsTime(); !got.Equal(now) {
				f.Errorf("%s: last contact %v, want the heartbeat at %v", name, got, now)
			}
		}
		if got := f.streamed(&serverpb.StreamClientIdsRequest{LastContactAfter: since}); len(got) != 1 || !got[there] {
			f.Errorf("later than %v: %v, want the client with a session", since.AsTime(), got)
		}
	})
}

// Clients that are asked for by ID come with their labels too. G-27
func TestListClientsByIDHaveLabels_G27(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		a, b := f.register("", "linux"), f.register("", "linux", "canary")
		got := f.listed(a.Bytes(), b.Bytes())
		if len(got[a].GetLabels()) != 1 || len(got[b].GetLabels()) != 2 {
			f.Errorf("listed %v", got)
		}
	})
}

// Listings go on over the ends of pages.
func TestListClientsOverPages_G21(t *testing.T) {
	s := storetest.NewSQLite(t)
	f := serve(t, s, nil)
	f.real = s
	const clients = 2*1000 + 1
	want := make([]identity.ClientID, clients)
	updates := make([]store.ContactUpdate, clients)
	for i := range want {
		want[i] = identity.NewClientID()
		updates[i] = store.ContactUpdate{ClientID: want[i], Key: want[i].Bytes(), Address: "192.0.2.1:1"}
	}
	for chunk := range slices.Chunk(updates, 500) {
		_, err := f.real.RecordContacts(t.Context(), chunk)
		f.must(err)
	}
	if got := f.listed(); len(got) != clients {
		t.Errorf("%d clients listed, want %d", len(got), clients)
	}
	raw := make([][]byte, clients)
	for i, id := range want {
		raw[i] = id.Bytes()
	}
	if got := f.listed(raw...); len(got) != clients {
		t.Errorf("%d clients listed by ID, want %d", len(got), clients)
	}
	if got := f.streamed(&serverpb.StreamClientIdsRequest{}); len(got) != clients {
		t.Errorf("%d clients streamed, want %d", len(got), clients)
	}
}

// streamed collects a stream of IDs.
func (f *fixture) streamed(request *serverpb.StreamClientIdsRequest) map[identity.ClientID]bool {
	f.Helper()
	stream, err := f.admin.StreamClientIds(f.ctx, request)
	f.must(err)
	ids := make(map[identity.ClientID]bool)
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return ids
		}
		f.must(err)
		ids[identity.ClientID(answer.ClientId)] = true
	}
}

func TestStreamClientIds(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		early, late, refused := f.register(""), f.register(""), f.register("")
		_, err := f.admin.BlacklistClient(f.ctx, &serverpb.BlacklistClientRequest{ClientId: refused.Bytes()})
		f.must(err)
		lastContact := f.listed()[early].LastContactTime.AsTime()
		lateContact := f.listed()[late].LastContactTime.AsTime()
		tests := map[string]struct {
			request *serverpb.StreamClientIdsRequest
			want    []identity.ClientID
		}{
			"all":            {&serverpb.StreamClientIdsRequest{}, []identity.ClientID{early, late}},
			"blacklisted":    {&serverpb.StreamClientIdsRequest{IncludeBlacklisted: true}, []identity.ClientID{early, late, refused}},
			"strictly later": {&serverpb.StreamClientIdsRequest{LastContactAfter: timestamppb.New(lastContact)}, []identity.ClientID{late}},
			"same or later": {&serverpb.StreamClientIdsRequest{LastContactAfter: timestamppb.New(lastContact.Add(-1))},
				[]identity.ClientID{early, late}},
			"none": {&serverpb.StreamClientIdsRequest{LastContactAfter: timestamppb.New(lateContact)}, nil},
		}
		if !lastContact.Before(lateContact) {
			delete(tests, "strictly later") // within one microsecond
		}
		for name, test := range tests {
			got := f.streamed(test.request)
			for _, id := range test.want {
				if !got[id] {
					f.Errorf("%s: %v is missing", name, id)
				}
			}
			if len(got) != len(test.want) {
				f.Errorf("%s: %d clients, want %d", name, len(got), len(test.want))
			}
		}
		stream, err := f.admin.StreamClientIds(f.ctx, &serverpb.StreamClientIdsRequest{LastContactAfter: &timestamppb.Timestamp{Nanos: -1}})
		f.must(err)
		_, err = stream.Recv()
		wantCode(f, err, codes.InvalidArgument)
	})
}

func TestClientContacts(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		id := f.register("")
		for range 4 {
			f.contact(id, "server1:8080")
		}
		f.register("")
		answer, err := f.admin.ListClientContacts(f.ctx, &serverpb.ListClientContactsRequest{ClientId: id.Bytes()})
		f.must(err)
		times := make(map[time.Time]bool)
		for _, c := range answer.Contacts {
			times[c.Timestamp.AsTime()] = true
			if c.SentNonce != 1<<63 || c.ReceivedNonce != 7 || c.ObservedAddress != "192.0.2.1:4321" {
				f.Errorf("contact %v", c)
			}
		}
		if len(answer.Contacts) != 5 || len(times) != 5 {
			f.Errorf("%d contacts at %d times, want 5", len(answer.Contacts), len(times))
		}
		stream, err := f.admin.StreamClientContacts(f.ctx, &serverpb.StreamClientContactsRequest{ClientId: id.Bytes()})
		f.must(err)
		for _, want := range answer.Contacts {
			got, err := stream.Recv()
			f.must(err)
			if !proto.Equal(got.Contact, want) {
				f.Errorf("streamed %v, want %v", got.Contact, want)
			}
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			f.Errorf("after the last: %v", err)
		}
		for _, nobody := range [][]byte{nil, identity.NewClientID().Bytes()} {
			answer, err := f.admin.ListClientContacts(f.ctx, &serverpb.ListClientContactsRequest{ClientId: nobody})
			f.must(err)
			if len(answer.Contacts) != 0 {
				f.Errorf("contacts of %x: %v", nobody, answer.Contacts)
			}
		}
		_, err = f.admin.ListClientContacts(f.ctx, &serverpb.ListClientContactsRequest{ClientId: []byte{1}})
		wantCode(f, err, codes.InvalidArgument)
		bad, err := f.admin.StreamClientContacts(f.ctx, &serverpb.StreamClientContactsRequest{ClientId: make([]byte, 9)})
		f.must(err)
		_, err = bad.Recv()
		wantCode(f, err, codes.InvalidArgument)
	})
}

// The server that holds the session is told at once, and all others, where copies of the key may stream to. G-10
func TestBlacklistClient_G10(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		id := f.register("server1:8080")
		for _, other := range []string{"server1", "server2"} {
			_, err := f.real.Heartbeat(f.ctx, store.ServerInfo{ID: other, Address: other + ":8080"})
			f.must(err)
		}
		for range 2 {
			_, err := f.admin.BlacklistClient(f.ctx, &serverpb.BlacklistClientRequest{ClientId: id.Bytes()})
			f.must(err)
		}
		if !f.listed()[id].Blacklisted {
			f.Error("not blacklisted")
		}
		holder := hint{"blacklisted", "server1:8080", []identity.ClientID{id}}
		other := hint{"blacklisted", "server2:8080", []identity.ClientID{id}}
		if got := f.hints.take(); !equalHints(got, []hint{holder, other, holder, other}) {
			f.Errorf("told %v, want twice %v and %v", got, holder, other)
		}
		for _, nobody := range [][]byte{nil, identity.NewClientID().Bytes()} {
			_, err := f.admin.BlacklistClient(f.ctx, &serverpb.BlacklistClientRequest{ClientId: nobody})
			f.must(err)
		}
		if got := f.listed(); len(got) != 1 {
			f.Errorf("blacklisting created a client: %v", got)
		}
		_, err := f.admin.BlacklistClient(f.ctx, &serverpb.BlacklistClientRequest{ClientId: []byte{1}})
		wantCode(f, err, codes.InvalidArgument)
	})
}

func TestFetchClientResourceUsageRecords(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		id := f.register("")
		errs, err := f.real.AddResourceUsage(f.ctx, []store.ResourceUsage{{
			ClientID: id, Scope: "shell", PID: 77, ProcessStart: &timestamppb.Timestamp{Seconds: 1, Nanos: 2},
			ClientTime: &timestamppb.Timestamp{Seconds: 3, Nanos: 4}, MeanUserCPU: 1.5, MaxUserCPU: 2.5, MeanSystemCPU: 3.5,
			MaxSystemCPU: 4.5, MeanResidentMiB: 5, MaxResidentMiB: 6, Terminated: true, MeanFDs: 7, MaxFDs: 8,
		}})
		f.must(errors.Join(append(errs, err)...))
		fetch := func(start, end time.Time) []*serverpb.ClientResourceUsageRecord {
			f.Helper()
			answer, err := f.admin.FetchClientResourceUsageRecords(f.ctx, &serverpb.FetchClientResourceUsageRecordsRequest{
				ClientId: id.Bytes(), StartTimestamp: timestamppb.New(start), EndTimestamp: timestamppb.New(end),
			})
			f.must(err)
			return answer.Records
		}
		all := fetch(time.Unix(0, 0), time.Now().Add(time.Hour))
		if len(all) != 1 {
			f.Fatalf("records %v", all)
		}
		want := &serverpb.ClientResourceUsageRecord{
			Scope: "shell", Pid: 77, ProcessStartTime: &timestamppb.Timestamp{Seconds: 1, Nanos: 2},
			ClientTimestamp: &timestamppb.Timestamp{Seconds: 3, Nanos: 4}, ServerTimestamp: all[0].ServerTimestamp,
			MeanUserCpuRate: 1.5, MaxUserCpuRate: 2.5, MeanSystemCpuRate: 3.5, MaxSystemCpuRate: 4.5,
			MeanResidentMemoryMib: 5, MaxResidentMemoryMib: 6, ProcessTerminated: true, MeanNumFds: 7, MaxNumFds: 8,
		}
		if !proto.Equal(all[0], want) {
			f.Errorf("record %v, want %v", all[0], want)
		}
		// From start on, up to but without end, to the nanosecond.
		at := all[0].ServerTimestamp.AsTime()
		for _, test := range []struct {
			start, end time.Duration
			want       int
		}{{0, 1, 1}, {-1, 0, 0}, {1, 2000, 0}, {0, 0, 0}, {-1000, 1, 1}, {-1, 1, 1}} {
			if got := fetch(at.Add(test.start), at.Add(test.end)); len(got) != test.want {
				f.Errorf("from %d ns to %d ns: %d records, want %d", test.start, test.end, len(got), test.want)
			}
		}
	})
}

func TestFetchClientResourceUsageRecordsRefuses(t *testing.T) {
	f := serve(t, storetest.NewSQLite(t), nil)
	now := timestamppb.Now()
	early := timestamppb.New(now.AsTime().Add(-time.Hour))
	tests := map[string]struct {
		request *serverpb.FetchClientResourceUsageRecordsRequest
		code    codes.Code
	}{
		"no start": {&serverpb.FetchClientResourceUsageRecordsRequest{EndTimestamp: now}, codes.InvalidArgument},
		"no end":   {&serverpb.FetchClientResourceUsageRecordsRequest{StartTimestamp: now}, codes.InvalidArgument},
		"bad start": {&serverpb.FetchClientResourceUsageRecordsRequest{
			StartTimestamp: &timestamppb.Timestamp{Nanos: -1}, EndTimestamp: now}, codes.InvalidArgument},
		"bad end": {&serverpb.FetchClientResourceUsageRecordsRequest{
			StartTimestamp: now, EndTimestamp: &timestamppb.Timestamp{Seconds: 1 << 60}}, codes.InvalidArgument},
		"backwards": {&serverpb.FetchClientResourceUsageRecordsRequest{StartTimestamp: now, EndTimestamp: early}, codes.InvalidArgument},
		"bad ID": {&serverpb.FetchClientResourceUsageRecordsRequest{
			ClientId: []byte{1}, StartTimestamp: early, EndTimestamp: now}, codes.InvalidArgument},
		"no ID": {&serverpb.FetchClientResourceUsageRecordsRequest{StartTimestamp: early, EndTimestamp: now}, codes.OK},
		"unknown": {&serverpb.FetchClientResourceUsageRecordsRequest{
			ClientId: identity.NewClientID().Bytes(), StartTimestamp: now, EndTimestamp: now}, codes.OK},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			answer, err := f.admin.FetchClientResourceUsageRecords(t.Context(), test.request)
			wantCode(t, err, test.code)
			if len(answer.GetRecords()) != 0 {
				t.Errorf("records %v", answer.Records)
			}
		})
	}
}
