package admin_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/storetest"
	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
)

func TestListServers(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		for _, info := range []store.ServerInfo{
			{ID: "b", Address: "server2:8080", Version: "2", Sessions: 12},
			{ID: "a", Address: "server1:8080", Version: "1", Draining: true},
		} {
			_, err := f.real.Heartbeat(f.ctx, info)
			f.must(err)
		}
		f.db.Exec(f, "UPDATE servers SET heartbeat_us = 1 WHERE server_id = 'b'") // died long ago
		answer, err := f.control.ListServers(f.ctx, &controlpb.ListServersRequest{})
		f.must(err)
		if len(answer.Servers) != 2 {
			f.Fatalf("servers %v", answer)
		}
		a, b := answer.Servers[0], answer.Servers[1]
		if a.ServerId != "a" || a.NotificationAddress != "server1:8080" || !a.Draining || a.Version != "1" ||
			time.Since(a.LastHeartbeat.AsTime()).Abs() > time.Minute {
			f.Errorf("server %v", a)
		}
		if b.ServerId != "b" || b.Sessions != 12 || b.Draining || b.LastHeartbeat.AsTime().Year() != 1970 {
			f.Errorf("server %v", b)
		}
	})
}

func TestListClientServices_G47(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		id := f.register("")
		errs, err := f.real.SetClientInfo(f.ctx, []store.ClientInfo{{ClientID: id, Services: []store.ClientService{
			{Name: "shell", Signature: []byte("sig")}, {Name: "inventory"},
		}}})
		f.must(errors.Join(append(errs, err)...))
		answer, err := f.control.ListClientServices(f.ctx, &controlpb.ListClientServicesRequest{ClientId: id.Bytes()})
		f.must(err)
		if len(answer.Services) != 2 || answer.Services[0].Name != "inventory" || string(answer.Services[1].Signature) != "sig" {
			f.Errorf("services %v", answer)
		}
		for _, nobody := range [][]byte{nil, identity.NewClientID().Bytes()} {
			answer, err := f.control.ListClientServices(f.ctx, &controlpb.ListClientServicesRequest{ClientId: nobody})
			f.must(err)
			if len(answer.Services) != 0 {
				f.Errorf("services of %x: %v", nobody, answer)
			}
		}
		_, err = f.control.ListClientServices(f.ctx, &controlpb.ListClientServicesRequest{ClientId: []byte{1}})
		wantCode(f, err, codes.InvalidArgument)
	})
}

func TestBacklogStatus(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		for range 3 {
			f.insert(message(identity.ClientID{}))
		}
		answer, err := f.control.BacklogStatus(f.ctx, &controlpb.BacklogStatusRequest{})
		f.must(err)
		if len(answer.Services) != 1 {
			f.Fatalf("backlog %v", answer)
		}
		got := answer.Services[0]
		if got.Service != "shell" || got.Depth != 3 || got.Bytes == 0 || got.OldestAge.AsDuration() < 0 {
			f.Errorf("backlog %v", got)
		}
	})
}

// kill makes n dead letters of a service.
func (f *fixture) kill(service string, n int) (ids []identity.MessageID) {
	f.Helper()
	var results []store.ServiceResult
	for range n {
		m := message(identity.ClientID{})
		m.Destination.ServiceName = service
		id := identity.MessageID(m.MessageId)
		results = append(results, store.ServiceResult{ID: id, Message: m, Service: service, Failed: true, Reason: "refused"})
		ids = append(ids, id)
	}
	f.must(f.real.RecordServiceResults(f.ctx, results))
	slices.SortFunc(ids, func(a, b identity.MessageID) int { return slices.Compare(a[:], b[:]) })
	return ids
}

func TestListDeadLetters(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		a, b, c := f.kill("a", 5), f.kill("b", 20), f.kill("c", 1)
		for _, test := range []struct {
			service string
			size    uint32
			data    bool
			want    []identity.MessageID
		}{
			{"", 0, false, slices.Concat(a, b, c)},
			{"", 0, true, slices.Concat(a, b, c)},
			{"", 3, true, slices.Concat(a, b, c)},
			{"", 25, false, slices.Concat(a, b, c)},
			{"b", 4, false, b},
			{"b", 1 << 31, true, b},
			{"nobody", 3, true, nil},
		} {
			var got []identity.MessageID
			request := &controlpb.ListDeadLettersRequest{Service: test.service, PageSize: test.size, WantData: test.data}
			for {
				answer, err := f.control.ListDeadLetters(f.ctx, request)
				f.must(err)
				if test.size > 0 && len(answer.DeadLetters) > int(test.size) {
					f.Errorf("a page of %d, want at most %d", len(answer.DeadLetters), test.size)
				}
				for _, d := range answer.DeadLetters {
					got = append(got, identity.MessageID(d.Message.MessageId))
					if d.Reason != "refused" || d.FailedTime == nil || d.Attempts != 1 || (d.Message.Data != nil) != test.data {
						f.Errorf("letter %v", d)
					}
				}
				if request.PageToken = answer.NextPageToken; request.PageToken == "" {
					break
				}
			}
			if !slices.Equal(got, test.want) {
				f.Errorf("%q in pages of %d: %d letters, want %d in order", test.service, test.size, len(got), len(test.want))
			}
		}
		for _, token := range []string{"?", "AAAA"} {
			_, err := f.control.ListDeadLetters(f.ctx, &controlpb.ListDeadLettersRequest{PageToken: token})
			wantCode(f, err, codes.InvalidArgument)
		}
	})
}

func TestRetryAndDeleteDeadLetters(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		a, b := f.kill("a", 4), f.kill("b", 3)
		raw := func(ids ...identity.MessageID) (list [][]byte) {
			for _, id := range ids {
				list = append(list, id.Bytes())
			}
			return list
		}
		retried, err := f.control.RetryDeadLetters(f.ctx, &controlpb.RetryDeadLettersRequest{
			Service: "a", MessageIds: raw(a[0], a[2], a[0], b[0], identity.NewMessageID()),
		})
		f.must(err)
		if retried.Count != 2 {
			f.Errorf("%d retried, want 2", retried.Count)
		}
		claimed, err := f.real.ClaimBacklog(f.ctx, "server", []string{"a", "b"}, 10, time.Minute)
		f.must(err)
		if len(claimed) != 2 || claimed[0].Attempts != 0 {
			f.Errorf("claimed %v, want two, due at once", claimed)
		}
		deleted, err := f.control.DeleteDeadLetters(f.ctx, &controlpb.DeleteDeadLettersRequest{Service: "a", MessageIds: raw(a[1])})
		f.must(err)
		// No IDs mean all; an empty ID names none.
		none, err := f.control.DeleteDeadLetters(f.ctx, &controlpb.DeleteDeadLettersRequest{Service: "a", MessageIds: [][]byte{nil}})
		f.must(err)
		rest, err := f.control.DeleteDeadLetters(f.ctx, &controlpb.DeleteDeadLettersRequest{Service: "a"})
		f.must(err)
		others, err := f.control.RetryDeadLetters(f.ctx, &controlpb.RetryDeadLettersRequest{Service: "b"})
		f.must(err)
		if deleted.Count != 1 || none.Count != 0 || rest.Count != 1 || others.Count != 3 {
			f.Errorf("deleted %d, %d, %d, retried %d; want 1, 0, 1, 3", deleted.Count, none.Count, rest.Count, others.Count)
		}
		left, err := f.control.ListDeadLetters(f.ctx, &controlpb.ListDeadLettersRequest{})
		f.must(err)
		if len(left.DeadLetters) != 0 {
			f.Errorf("left: %v", left)
		}
		_, err = f.control.RetryDeadLetters(f.ctx, &controlpb.RetryDeadLettersRequest{})
		wantCode(f, err, codes.InvalidArgument)
		_, err = f.control.DeleteDeadLetters(f.ctx, &controlpb.DeleteDeadLettersRequest{Service: "a", MessageIds: [][]byte{{1}}})
		wantCode(f, err, codes.InvalidArgument)
	})
}
