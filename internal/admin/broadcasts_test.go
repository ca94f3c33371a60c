package admin_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/storetest"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

func aBroadcast() *serverpb.Broadcast {
	return &serverpb.Broadcast{
		BroadcastId: identity.NewBroadcastID().Bytes(),
		Source:      &fspb.Address{ServiceName: "backend"},
		MessageType: "Update",
		Data:        payload("1.2"),
	}
}

func (f *fixture) create(b *serverpb.Broadcast, limit uint64) {
	f.Helper()
	_, err := f.admin.CreateBroadcast(f.ctx, &serverpb.CreateBroadcastRequest{Broadcast: b, Limit: limit})
	f.must(err)
}

// active are the active broadcasts by ID.
func (f *fixture) active(service string) map[identity.BroadcastID]*serverpb.Broadcast {
	f.Helper()
	answer, err := f.admin.ListActiveBroadcasts(f.ctx, &serverpb.ListActiveBroadcastsRequest{ServiceName: service})
	f.must(err)
	byID := make(map[identity.BroadcastID]*serverpb.Broadcast)
	for _, b := range answer.Broadcasts {
		byID[identity.BroadcastID(b.BroadcastId)] = b
	}
	return byID
}

func TestCreateAndListBroadcasts(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		_, err := f.real.Heartbeat(f.ctx, store.ServerInfo{ID: "s1", Address: "server1:8080"})
		f.must(err)
		_, err = f.real.Heartbeat(f.ctx, store.ServerInfo{ID: "s2", Address: "server2:8080"})
		f.must(err)
		full := aBroadcast()
		full.Source.ClientId = identity.NewClientID().Bytes() // dropped
		full.Destination = &fspb.Address{ServiceName: "updater", ClientId: identity.NewClientID().Bytes()}
		full.RequiredLabels = []*fspb.Label{{ServiceName: "client", Label: "linux"}, {ServiceName: "client", Label: "x86"}}
		full.ExpirationTime = timestamppb.New(time.Now().Add(time.Hour))
		full.GroupName = "weekly"
		f.create(full, 5)
		if told := f.hints.take(); len(told) != 2 || told[0].kind != "broadcasts" || told[0].address == told[1].address {
			f.Errorf("told %v, want both servers", told)
		}
		small := aBroadcast()
		small.Source.ServiceName, small.Data, small.Destination = "other", nil, &fspb.Address{}
		f.create(small, store.UnlimitedBroadcast)
		nameless := aBroadcast()
		nameless.Source, nameless.Data = &fspb.Address{}, &anypb.Any{}
		f.create(nameless, 1<<64-1)
		anonymous := aBroadcast()
		anonymous.BroadcastId = nil
		f.create(anonymous, 1)
		f.create(aBroadcast(), 0) // never active
		expired := aBroadcast()
		expired.ExpirationTime = timestamppb.New(time.Now().Add(-time.Minute))
		f.create(expired, 5)

		all := f.active("")
		if len(all) != 4 {
			f.Errorf("%d active broadcasts, want 4: %v", len(all), all)
		}
		full.Source.ClientId, full.Destination.ClientId, full.GroupName = nil, nil, ""
		small.Destination.ServiceName = "other"
		nameless.Destination = &fspb.Address{}
		for _, want := range []*serverpb.Broadcast{full, small, nameless} {
			if got := all[identity.BroadcastID(want.BroadcastId)]; !proto.Equal(got, want) {
				f.Errorf("active %v, want %v", got, want)
			}
		}
		if got := f.active("other"); len(got) != 1 || got[identity.BroadcastID(small.BroadcastId)] == nil {
			f.Errorf("of one service: %v", got)
		}
		if got := f.active("nobody"); len(got) != 0 {
			f.Errorf("of no service: %v", got)
		}
	})
}

// Nothing that is missing ends the process. G-01
func TestCreateBroadcastRefuses_G01(t *testing.T) {
	tests := map[string]struct {
		change func(*serverpb.CreateBroadcastRequest)
		code   codes.Code
	}{
		"no broadcast": {func(r *serverpb.CreateBroadcastRequest) { r.Broadcast = nil }, codes.InvalidArgument},
		"short ID":     {func(r *serverpb.CreateBroadcastRequest) { r.Broadcast.BroadcastId = []byte{1} }, codes.InvalidArgument},
		"zero ID":      {func(r *serverpb.CreateBroadcastRequest) { r.Broadcast.BroadcastId = make([]byte, 8) }, codes.InvalidArgument},
		"no source":    {func(r *serverpb.CreateBroadcastRequest) { r.Broadcast.Source = nil }, codes.InvalidArgument},
		"label twice": {func(r *serverpb.CreateBroadcastRequest) {
			r.Broadcast.RequiredLabels = []*fspb.Label{{ServiceName: "client", Label: "a"}, {ServiceName: "client", Label: "a"}}
		}, codes.InvalidArgument},
		"bad expiration": {func(r *serverpb.CreateBroadcastRequest) {
			r.Broadcast.ExpirationTime = &timestamppb.Timestamp{Nanos: -1}
		}, codes.InvalidArgument},
		"long source": {func(r *serverpb.CreateBroadcastRequest) { r.Broadcast.Source.ServiceName = strings.Repeat("x", 129) }, codes.InvalidArgument},
		"long label": {func(r *serverpb.CreateBroadcastRequest) {
			r.Broadcast.RequiredLabels = []*fspb.Label{{ServiceName: "client", Label: strings.Repeat("x", 129)}}
		}, codes.InvalidArgument},
	}
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		for name, test := range tests {
			request := &serverpb.CreateBroadcastRequest{Broadcast: aBroadcast(), Limit: 5}
			test.change(request)
			if _, err := f.admin.CreateBroadcast(f.ctx, request); err == nil {
				f.Errorf("%s is accepted", name)
			} else {
				wantCode(f, err, test.code)
			}
		}
		b := aBroadcast()
		f.create(b, 1)
		_, err := f.admin.CreateBroadcast(f.ctx, &serverpb.CreateBroadcastRequest{Broadcast: b, Limit: 1})
		wantCode(f, err, codes.AlreadyExists)
		if got := f.active(""); len(got) != 1 {
			f.Errorf("%d active broadcasts, want 1", len(got))
		}
	})
}

// A newer broadcast of a group takes the place of the older. G-34
func TestBroadcastGroups_G34(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		labels := func(names ...string) (list []*fspb.Label) {
			for _, name := range names {
				list = append(list, &fspb.Label{ServiceName: "client", Label: name})
			}
			return list
		}
		older, different, ungrouped, newer := aBroadcast(), aBroadcast(), aBroadcast(), aBroadcast()
		older.GroupName, older.RequiredLabels = "g", labels("a", "b")
		different.GroupName, different.RequiredLabels = "g", labels("a")
		newer.GroupName, newer.RequiredLabels = "g", labels("b", "a")
		newer.Destination = &fspb.Address{ServiceName: "backend"} // the same as none
		ungrouped.RequiredLabels = labels("a", "b")
		for _, b := range []*serverpb.Broadcast{older, different, ungrouped, newer} {
			f.create(b, 10)
		}
		active := f.active("")
		if len(active) != 3 || active[identity.BroadcastID(older.BroadcastId)] != nil {
			f.Errorf("active: %v, want all but the older one", active)
		}
	})
}

// Concurrent servers never send more than the limit. G-60
func TestBroadcastLimitIsExact_G60(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		b := aBroadcast()
		f.create(b, 3)
		var clients []identity.ClientID
		for range 5 {
			clients = append(clients, f.register(""))
		}
		got, err := f.real.AssignBroadcast(f.ctx, identity.BroadcastID(b.BroadcastId), clients, message, time.Minute)
		f.must(err)
		if len(got) != 3 || len(f.active("")) != 0 {
			f.Errorf("%d assigned, %d still active", len(got), len(f.active("")))
		}
	})
}

func TestDisableBroadcasts(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		_, err := f.real.Heartbeat(f.ctx, store.ServerInfo{ID: "s1", Address: "server1:8080"})
		f.must(err)
		a, b, c := aBroadcast(), aBroadcast(), aBroadcast()
		for _, one := range []*serverpb.Broadcast{a, b, c} {
			f.create(one, 10)
		}
		f.hints.take()
		disable := func(ids ...[]byte) error {
			_, err := f.admin.DisableBroadcasts(f.ctx, &serverpb.DisableBroadcastsRequest{BroadcastIds: ids})
			return err
		}
		f.must(disable())
		f.must(disable(nil))
		if told := f.hints.take(); len(told) != 0 {
			f.Errorf("told %v of nothing", told)
		}
		wantCode(f, disable(a.BroadcastId, []byte{1}), codes.InvalidArgument)
		if got := f.active(""); len(got) != 3 {
			f.Errorf("a refused call disabled something: %v", got)
		}
		f.must(disable(a.BroadcastId, identity.NewBroadcastID().Bytes(), b.BroadcastId, a.BroadcastId))
		if got := f.active(""); len(got) != 1 || got[identity.BroadcastID(c.BroadcastId)] == nil {
			f.Errorf("active: %v, want the third", got)
		}
		if told := f.hints.take(); !equalHints(told, []hint{{"broadcasts", "server1:8080", nil}}) {
			f.Errorf("told %v", told)
		}
	})
}
