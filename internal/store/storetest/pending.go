package storetest

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

var pendingTests = []test{
	{name: "PendingMessages", run: testPendingMessages},
	{name: "DeletePending", run: testDeletePending},
}

func testPendingMessages(f *fixture) {
	known := f.clients(4)
	var list []*fspb.Message
	for i := range 9 {
		list = append(list, wholeMessage(known[i%3]))
	}
	f.insert(list...)
	f.insert(message(known[3], "service"))
	// Those that were handed out and wait for an acknowledgement are pending too.
	f.must(f.s.RecordAttempts(f.ctx, refsOf(known[0], idsOf(list[:1])), time.Hour))
	slices.SortFunc(list, func(a, b *fspb.Message) int { return slices.Compare(a.MessageId, b.MessageId) })
	asked := append(slices.Clone(known[:3]), known[0], identity.NewClientID())
	want := idsOf(list)
	for _, tc := range []struct {
		name  string
		after *identity.MessageID
		limit int
		want  []identity.MessageID
	}{
		{"all", nil, 100, want},
		{"as many as there are", nil, 9, want},
		{"first page", nil, 4, want[:4]},
		{"next page", &want[3], 4, want[4:8]},
		{"last page", &want[7], 4, want[8:]},
		{"past the end", &want[8], 4, nil},
		{"after one that is not there", &identity.MessageID{}, 2, want[:2]},
		{"none", nil, 0, nil},
	} {
		if got, err := f.s.PendingIDs(f.ctx, asked, tc.after, tc.limit); err != nil || !slices.Equal(got, tc.want) {
			f.Errorf("%s: %v, %v; want %v", tc.name, got, err, tc.want)
		}
	}
	for _, wantData := range []bool{true, false} {
		// In the order asked for; what is not pending is left out.
		got, err := f.s.PendingMessages(f.ctx, []identity.MessageID{want[3], identity.NewMessageID(), want[1], want[8]}, wantData)
		f.must(err)
		if !slices.EqualFunc(got, []*fspb.Message{list[3], list[1], list[8]}, func(got, want *fspb.Message) bool {
			if want = proto.CloneOf(want); !wantData {
				want.Data = nil
			}
			return proto.Equal(got, want)
		}) {
			f.Errorf("messages with data %v: %v", wantData, got)
		}
	}
	if count, err := f.s.PendingCount(f.ctx, asked); err != nil || count != 9 {
		f.Errorf("count %d, %v; want 9", count, err)
	}
	none, err := f.s.PendingIDs(f.ctx, nil, nil, 10)
	if count, countErr := f.s.PendingCount(f.ctx, nil); err != nil || countErr != nil || len(none) != 0 || count != 0 {
		f.Errorf("no clients: %d messages, count %d, %v, %v", len(none), count, err, countErr)
	}
}

func testDeletePending(f *fixture) {
	known := f.clients(3)
	gone, kept := messages(1200, known[0], "service"), messages(2, known[2], "service")
	f.insert(gone...)
	f.insert(kept...)
	f.insert(message(known[1], "service"))
	n, err := f.s.DeletePending(f.ctx, []identity.ClientID{known[0], known[1], known[0], identity.NewClientID()}, "Removed by admin action.")
	if err != nil || n != 1201 {
		f.Errorf("deleted %d, %v; want 1201", n, err)
	}
	if got := f.status(idOf(gone[17])).Result; got == nil || !got.Failed || got.Reason != "Removed by admin action." {
		f.Errorf("result %+v", got)
	}
	if count, err := f.s.PendingCount(f.ctx, known); err != nil || count != 2 {
		f.Errorf("%d pending, %v; want those of the other client", count, err)
	}
	for _, clients := range [][]identity.ClientID{nil, known[:2]} {
		if n, err := f.s.DeletePending(f.ctx, clients, "again"); err != nil || n != 0 {
			f.Errorf("nothing to delete: %d, %v", n, err)
		}
	}
}
