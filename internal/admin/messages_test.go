package admin_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/admin"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/storetest"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// Failures come with their reason. G-28
func TestGetMessageStatus_G28(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		id := f.register("")
		created := &timestamppb.Timestamp{Seconds: 1e9, Nanos: 5}
		ask := func(raw []byte) *serverpb.GetMessageStatusResponse {
			f.Helper()
			answer, err := f.admin.GetMessageStatus(f.ctx, &serverpb.GetMessageStatusRequest{MessageId: raw})
			f.must(err)
			return answer
		}
		var ids []identity.MessageID
		for range 3 {
			m := message(id)
			m.CreationTime = created
			ids = append(ids, f.insert(m))
		}
		_, err := f.real.AckMessages(f.ctx, []store.Ack{
			{MessageRef: store.MessageRef{ClientID: id, ID: ids[1]}},
			{MessageRef: store.MessageRef{ClientID: id, ID: ids[2]}, Failed: true, Reason: "no such program"},
		})
		f.must(err)
		for i, want := range []*fspb.MessageResult{nil, {}, {Failed: true, FailedReason: "no such program"}} {
			got := ask(ids[i].Bytes())
			if want != nil && got.Result.GetProcessedTime().GetSeconds() == 0 {
				f.Errorf("message %d: completed without a time: %v", i, got)
			}
			if want != nil {
				want.ProcessedTime = got.Result.GetProcessedTime()
			}
			if !proto.Equal(got, &serverpb.GetMessageStatusResponse{CreationTime: created, Result: want}) {
				f.Errorf("message %d: %v, want %v", i, got, want)
			}
		}
		for _, nothing := range [][]byte{nil, identity.NewMessageID().Bytes()} {
			if got := ask(nothing); !proto.Equal(got, &serverpb.GetMessageStatusResponse{}) {
				f.Errorf("status of %x: %v", nothing, got)
			}
		}
		_, err = f.admin.GetMessageStatus(f.ctx, &serverpb.GetMessageStatusRequest{MessageId: make([]byte, 16)})
		wantCode(f, err, codes.InvalidArgument)
	})
}

func TestDeletePendingMessages(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		a, b, c := f.register(""), f.register(""), f.register("")
		var removed []identity.MessageID
		for range 3 {
			removed = append(removed, f.insert(message(a)), f.insert(message(b)))
		}
		kept := f.insert(message(c))
		// Handed out and not acknowledged counts as pending.
		_, err := f.real.DueMessages(f.ctx, []store.DueRequest{{ClientID: a, Limit: 1}})
		f.must(err)
		for _, ids := range [][][]byte{nil, {nil}, {identity.NewClientID().Bytes()}, {a.Bytes(), b.Bytes(), a.Bytes()}} {
			_, err := f.admin.DeletePendingMessages(f.ctx, &serverpb.DeletePendingMessagesRequest{ClientIds: ids})
			f.must(err)
		}
		for _, id := range removed {
			got, err := f.admin.GetMessageStatus(f.ctx, &serverpb.GetMessageStatusRequest{MessageId: id.Bytes()})
			f.must(err)
			if !got.Result.GetFailed() || got.Result.FailedReason != "Removed by admin action." || got.Result.ProcessedTime == nil {
				f.Errorf("removed message: %v", got)
			}
		}
		if got := f.pendingMessages(c); len(got) != 1 || identity.MessageID(got[0].MessageId) != kept {
			f.Errorf("another client's messages: %v", got)
		}
		_, err = f.admin.DeletePendingMessages(f.ctx, &serverpb.DeletePendingMessagesRequest{ClientIds: [][]byte{c.Bytes(), {1}}})
		wantCode(f, err, codes.InvalidArgument)
		if got := f.pendingMessages(c); len(got) != 1 {
			f.Error("a refused call removed something")
		}
	})
}

func TestGetPendingMessages(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		a, b, other := f.register(""), f.register(""), f.register("")
		var want []*fspb.Message
		for range 5 {
			for _, id := range []identity.ClientID{a, b} {
				m := message(id)
				m.CreationTime = timestamppb.Now()
				f.insert(m)
				want = append(want, m)
			}
		}
		f.insert(message(other))
		f.insert(message(identity.ClientID{}))
		slices.SortFunc(want, func(a, b *fspb.Message) int { return bytes.Compare(a.MessageId, b.MessageId) })
		ids := [][]byte{a.Bytes(), b.Bytes(), a.Bytes(), nil, identity.NewClientID().Bytes()}
		for _, test := range []struct {
			offset, limit uint64
			data          bool
			want          []*fspb.Message
		}{
			{0, 0, true, want},
			{0, 0, false, want},
			{0, 3, true, want[:3]},
			{4, 3, false, want[4:7]},
			{8, 5, true, want[8:]},
			{10, 5, true, nil},
			{1 << 63, 1 << 63, true, nil},
		} {
			answer, err := f.admin.GetPendingMessages(f.ctx, &serverpb.GetPendingMessagesRequest{
				ClientIds: ids, Offset: test.offset, Limit: test.limit, WantData: test.data,
			})
			f.must(err)
			if !slices.EqualFunc(answer.Messages, test.want, func(got, want *fspb.Message) bool {
				want = proto.CloneOf(want)
				if !test.data {
					want.Data = nil
				}
				return proto.Equal(got, want)
			}) {
				f.Errorf("offset %d, limit %d: %d messages, want %d", test.offset, test.limit, len(answer.Messages), len(test.want))
			}
		}
		count, err := f.admin.GetPendingMessageCount(f.ctx, &serverpb.GetPendingMessageCountRequest{ClientIds: ids})
		f.must(err)
		if count.Count != 10 {
			f.Errorf("count %d, want 10", count.Count)
		}
	})
}

func TestGetPendingMessagesOfNobodyAndRefused(t *testing.T) {
	f := serve(t, storetest.NewSQLite(t), nil)
	for _, ids := range [][][]byte{nil, {nil}} {
		answer, err := f.admin.GetPendingMessages(f.ctx, &serverpb.GetPendingMessagesRequest{ClientIds: ids})
		f.must(err)
		count, err := f.admin.GetPendingMessageCount(f.ctx, &serverpb.GetPendingMessageCountRequest{ClientIds: ids})
		f.must(err)
		if len(answer.Messages) != 0 || count.Count != 0 {
			t.Errorf("%v, %v", answer, count)
		}
	}
	_, err := f.admin.GetPendingMessages(f.ctx, &serverpb.GetPendingMessagesRequest{Offset: 1})
	wantCode(t, err, codes.InvalidArgument)
	_, err = f.admin.GetPendingMessages(f.ctx, &serverpb.GetPendingMessagesRequest{ClientIds: [][]byte{{1}}})
	wantCode(t, err, codes.InvalidArgument)
	_, err = f.admin.GetPendingMessageCount(f.ctx, &serverpb.GetPendingMessageCountRequest{ClientIds: [][]byte{{1}}})
	wantCode(t, err, codes.InvalidArgument)
}

// shiftingStore has messages of which some are completed while they are listed and read.
type shiftingStore struct {
	*failingStore
	ids   []identity.MessageID // in order
	gone  []int                // how many of the first are completed before each query
	lists int                  // queries for IDs
}

func (s *shiftingStore) shift() {
	if len(s.gone) > 0 {
		s.ids, s.gone = s.ids[min(s.gone[0], len(s.ids)):], s.gone[1:]
	}
}

func (s *shiftingStore) PendingIDs(_ context.Context, _ []identity.ClientID, after *identity.MessageID, limit int) ([]identity.MessageID, error) {
	s.shift()
	s.lists++
	from := 0
	if after != nil {
		from = slices.IndexFunc(s.ids, func(id identity.MessageID) bool { return bytes.Compare(id[:], after[:]) > 0 })
	}
	if from < 0 {
		return nil, nil
	}
	return slices.Clone(s.ids[from:min(len(s.ids), from+limit)]), nil
}

func (s *shiftingStore) PendingMessages(_ context.Context, ids []identity.MessageID, _ bool) ([]*fspb.Message, error) {
	s.shift()
	var page []*fspb.Message
	for _, id := range ids {
		if len(s.ids) > 0 && bytes.Compare(id[:], s.ids[0][:]) >= 0 {
			page = append(page, &fspb.Message{MessageId: id[:]})
		}
	}
	return page, nil
}

// However many messages are completed between two queries, those that stay pending are all in the answer, once and in
// order, as many as asked for.
func TestGetPendingMessagesWhileSomeComplete(t *testing.T) {
	all := make([]identity.MessageID, 3*admin.PendingIDs+10)
	for i := range all {
		binary.BigEndian.PutUint32(all[i][:], uint32(i))
	}
	for name, test := range map[string]struct {
		gone          []int
		offset, limit uint64
		first, want   int // of the first message, and how many
	}{
		"none":                     {nil, 0, 0, 0, len(all)},
		"some before the list":     {[]int{10}, 0, 0, 10, len(all) - 10},
		"some after the list":      {[]int{0, 5000}, 0, 0, 5000, len(all) - 5000},
		"more than a list":         {[]int{0, 2 * admin.PendingIDs}, 0, 0, 2 * admin.PendingIDs, admin.PendingIDs + 10},
		"all":                      {[]int{0, len(all)}, 0, 0, 0, 0},
		"a limit is reached later": {[]int{0, 100}, 0, 50, 100, 50},
		"an offset over lists":     {nil, 2*admin.PendingIDs + 5, 10, 2*admin.PendingIDs + 5, 10},
		"a limit over lists":       {nil, 0, 2 * admin.PendingIDs, 0, 2 * admin.PendingIDs},
		"hostile":                  {nil, 1<<64 - 1, 1<<64 - 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shiftingStore{failingStore: &failingStore{}, ids: all, gone: test.gone}
			f := serve(t, s, nil)
			answer, err := f.admin.GetPendingMessages(f.ctx, &serverpb.GetPendingMessagesRequest{
				ClientIds: [][]byte{identity.NewClientID().Bytes()}, Offset: test.offset, Limit: test.limit,
			}, grpc.MaxCallRecvMsgSize(64<<20))
			f.must(err)
			if len(answer.Messages) != test.want {
				t.Fatalf("%d messages, want %d", len(answer.Messages), test.want)
			}
			for i, m := range answer.Messages {
				if identity.MessageID(m.MessageId) != all[test.first+i] {
					t.Fatalf("message %d is %x, want %v", i, m.MessageId, all[test.first+i])
				}
			}
			if s.lists > 4 {
				t.Errorf("%d lists", s.lists)
			}
		})
	}
}
