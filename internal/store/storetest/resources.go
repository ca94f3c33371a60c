package storetest

import (
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

var resourceTests = []test{
	{name: "AddAndFetch_G26", run: testResources},
	{name: "FetchPages", run: testResourcePages},
}

func testResources(f *fixture) { // G-26: the start of the process may be absent
	id := f.client()
	full := store.ResourceUsage{
		ClientID: id, Scope: "service", PID: math.MaxInt64, ProcessStart: &timestamppb.Timestamp{Seconds: 5, Nanos: 6},
		ClientTime: &timestamppb.Timestamp{Seconds: -7}, MeanUserCPU: 1.1, MaxUserCPU: math.MaxFloat32, MeanSystemCPU: 3.3,
		MaxSystemCPU: math.SmallestNonzeroFloat32, MeanResidentMiB: math.MaxInt32, MaxResidentMiB: 6, Terminated: true, MeanFDs: -7, MaxFDs: 8,
	}
	odd := store.ResourceUsage{ClientID: id, Scope: strings.Repeat("x", 1000), MeanUserCPU: float32(math.NaN()), MaxUserCPU: float32(math.Inf(1))}
	start := time.Now().Add(-time.Minute)
	errs, err := f.s.AddResourceUsage(f.ctx, []store.ResourceUsage{full, {ClientID: identity.NewClientID()}})
	f.must(err)
	if errs[0] != nil || !errors.Is(errs[1], store.ErrUnknownClient) {
		f.Errorf("errors %v", errs)
	}
	f.allNil(f.s.AddResourceUsage(f.ctx, []store.ResourceUsage{odd, odd}))
	got, err := f.s.FetchResourceUsage(f.ctx, id, start, time.Now().Add(time.Minute), -1, 10)
	f.must(err)
	if len(got) != 3 {
		f.Fatalf("%d records, want 3", len(got))
	}
	if diff := cmp.Diff(full, got[0], protocmp.Transform(), cmpopts.IgnoreFields(store.ResourceUsage{}, "ServerTime", "Nonce")); diff != "" {
		f.Errorf("record (-want +got):\n%s", diff)
	}
	if len(got[1].Scope) != store.MaxName || got[1].MeanUserCPU != 0 || got[1].ProcessStart != nil {
		f.Errorf("record %+v", got[1])
	}
	at := got[0].ServerTime
	for _, tc := range []struct {
		name       string
		start, end time.Time
		want       int
	}{
		{"start is included", at, at.Add(time.Microsecond), 1},
		{"end is not", start, at, 0},
		{"years ago", time.Unix(0, 0), time.Unix(1, 0), 0},
	} {
		if got, err := f.s.FetchResourceUsage(f.ctx, id, tc.start, tc.end, -1, 10); err != nil || len(got) != tc.want {
			f.Errorf("%s: %d records, %v; want %d", tc.name, len(got), err, tc.want)
		}
	}
	if none, err := f.s.FetchResourceUsage(f.ctx, identity.NewClientID(), start, time.Now(), -1, 10); err != nil || len(none) != 0 {
		f.Errorf("an unknown client: %v, %v", none, err)
	}
}

// testResourcePages reads page after page what came at one moment, and at another.
func testResourcePages(f *fixture) {
	id := f.client()
	for range 2 {
		f.allNil(f.s.AddResourceUsage(f.ctx, slices.Repeat([]store.ResourceUsage{{ClientID: id}}, 7)))
	}
	seen := make(map[int64]bool)
	at, after, end := time.Now().Add(-time.Minute), int64(-1), time.Now().Add(time.Minute)
	for pages := 0; ; pages++ {
		page, err := f.s.FetchResourceUsage(f.ctx, id, at, end, after, 4)
		f.must(err)
		for _, u := range page {
			if seen[u.Nonce] || u.ServerTime.Before(at) || u.ServerTime.Equal(at) && u.Nonce <= after {
				f.Errorf("page %d has %v %d again, or out of order", pages, u.ServerTime, u.Nonce)
			}
			seen[u.Nonce] = true
			at, after = u.ServerTime, u.Nonce
		}
		if len(page) < 4 {
			break
		}
	}
	if len(seen) != 14 {
		f.Errorf("%d reports, want 14", len(seen))
	}
}
