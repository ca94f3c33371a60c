package admin_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

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

// shiftingStore answers pages of messages, of which some go between the pages.
type shiftingStore struct {
	realStore
	ids   []byte // first bytes of the messages' IDs
	gone  []string
	calls int
}

func (s *shiftingStore) PendingMessages(_ context.Context, _ []identity.ClientID, offset, limit uint64, _ bool) ([]*fspb.Message, error) {
	if s.calls < len(s.gone) {
		s.ids = slices.DeleteFunc(s.ids, func(b byte) bool { return strings.IndexByte(s.gone[s.calls], b) >= 0 })
	}
	s.calls++
	var page []*fspb.Message
	for _, b := range s.ids[min(offset, uint64(len(s.ids))):] {
		if uint64(len(page)) == limit {
			break
		}
		page = append(page, &fspb.Message{MessageId: append([]byte{b}, make([]byte, 31)...)})
	}
	return page, nil
}

// However many messages are completed between two pages, those that stay pending are all in the answer.
func TestGetPendingMessagesWhileSomeComplete(t *testing.T) {
	var all []byte
	for b := range 250 {
		all = append(all, byte(b))
	}
	first := string(all[:126])   // most of the first page
	last := string(all[128:129]) // where the second page begins
	for name, gone := range map[string][]string{
		"none":              nil,
		"one":               {"", string(all[0])},
		"most of a page":    {"", first},
		"a page's end":      {"", last},
		"all seen":          {"", string(all[:129])},
		"all":               {"", string(all)},
		"a few at a time":   {"", string(all[:3]), string(all[3:90]), string(all[120:131]), string(all[240:])},
		"all before a page": {string(all[:249])},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shiftingStore{realStore: storetest.NewSQLite(t), ids: slices.Clone(all), gone: gone}
			f := serve(t, s, nil)
			answer, err := f.admin.GetPendingMessages(f.ctx, &serverpb.GetPendingMessagesRequest{
				ClientIds: [][]byte{identity.NewClientID().Bytes()}, WantData: true,
			})
			f.must(err)
			var got []byte
			for _, m := range answer.Messages {
				got = append(got, m.MessageId[0])
			}
			if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
				t.Errorf("out of order, or repeated: %v", got)
			}
			for _, b := range s.ids {
				if !slices.Contains(got, b) {
					t.Errorf("message %d is missing", b)
				}
			}
			if s.calls > 20 {
				t.Errorf("%d queries", s.calls)
			}
		})
	}
}
