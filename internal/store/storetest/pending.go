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
	for _, tc := range []struct {
		name          string
		offset, limit uint64
		want          []*fspb.Message
	}{
		{"all", 0, 0, list},
		{"offset alone", 4, 0, list[4:]},
		{"page", 2, 3, list[2:5]},
		{"end", 7, 10, list[7:]},
		{"past the end", 20, 10, nil},
		{"hostile", 1 << 63, 1<<64 - 1, nil},
	} {
		for _, wantData := range []bool{true, false} {
			got, err := f.s.PendingMessages(f.ctx, asked, tc.offset, tc.limit, wantData)
			f.must(err)
			if len(got) != len(tc.want) {
				f.Errorf("%s: %d messages, want %d", tc.name, len(got), len(tc.want))
				continue
			}
			for i, m := range tc.want {
				if want := proto.CloneOf(m); !wantData {
					want.Data = nil
					m = want
				}
				if !proto.Equal(got[i], m) {
					f.Errorf("%s: message %d is %v, want %v", tc.name, i, got[i], m)
				}
			}
		}
	}
	if count, err := f.s.PendingCount(f.ctx, asked); err != nil || count != 9 {
		f.Errorf("count %d, %v; want 9", count, err)
	}
	none, err := f.s.PendingMessages(f.ctx, nil, 0, 0, true)
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
