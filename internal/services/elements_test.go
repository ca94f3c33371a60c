package services_test

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/elements"
	"github.com/farspeak/farspeak/internal/services"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// grown is a report whose data holds an element of two bytes many times.
func grown(tb testing.TB, kind string, data proto.Message, element [2]byte, count int) *fspb.Message {
	tb.Helper()
	m := report(tb, kind, data)
	m.Data.Value = slices.Repeat(element[:], count)
	return m
}

// Data takes no more memory than its bytes justify, whatever these say: two bytes of an empty element become dozens (G-03).
func TestPayloadsThatGrowWhenDecoded(t *testing.T) {
	const count = 1 << 20
	for name, msg := range map[string]*fspb.Message{
		"ids":      grown(t, "MessageAck", &fspb.MessageAckData{}, [2]byte{0x0a, 0}, count),
		"labels":   grown(t, "ClientInfo", &fspb.ClientInfoData{}, [2]byte{0x0a, 0}, count),
		"services": grown(t, "ClientInfo", &fspb.ClientInfoData{}, [2]byte{0x12, 0}, count),
	} {
		t.Run(name, func(t *testing.T) {
			st := knownClientA()
			m := newManager(t, services.Config{Store: st})
			before := allocated()
			if err := m.Ingest(t.Context(), systemBatch(msg)); err != nil {
				t.Fatal(err)
			}
			if took := allocated() - before; took > 4*count {
				t.Errorf("%d bytes were allocated for data of %d", took, 2*count)
			}
			if got := st.dead[idOf(msg)]; !strings.Contains(got.Reason, elements.ErrTooMany.Error()) {
				t.Errorf("reason %q", got.Reason)
			}
			if got := services.PayloadElements(msg); got != services.MaxElements {
				t.Errorf("%d elements are charged for", got)
			}
		})
	}
}

// allocated is what the process allocated so far, in bytes.
func allocated() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}

// What agents really send counts in full.
func TestPayloadElements(t *testing.T) {
	info := &fspb.ClientInfoData{Labels: []*fspb.Label{{ServiceName: "client", Label: "linux"}, {ServiceName: "client", Label: "x"}}}
	if got := services.PayloadElements(report(t, "ClientInfo", info)); got != 6 {
		t.Errorf("%d elements, want two labels of two fields", got)
	}
}

// Only data that is decoded in this process counts.
func TestPayloadsOfOthers(t *testing.T) {
	other := grown(t, "MessageAck", &fspb.MessageAckData{}, [2]byte{0x0a, 0}, 10)
	other.Destination.ServiceName = "S"
	unknown := grown(t, "MessageAck", &fspb.MessageAckData{}, [2]byte{0x0a, 0}, 10)
	unknown.Data.TypeUrl = "type.googleapis.com/no.such.Type"
	for _, m := range []*fspb.Message{other, unknown, report(t, "MessageAck", nil), {}} {
		if got := services.PayloadElements(m); got != 0 {
			t.Errorf("%d elements in %v", got, m)
		}
	}
}

// FuzzElements checks that no more comes out of the decoder than was counted.
func FuzzElements(f *testing.F) {
	for _, m := range []*fspb.Message{
		grown(f, "MessageAck", &fspb.MessageAckData{}, [2]byte{0x0a, 0}, 100),
		grown(f, "ClientInfo", &fspb.ClientInfoData{}, [2]byte{0x12, 0}, services.MaxElements+1),
		report(f, "ClientInfo", &fspb.ClientInfoData{Labels: []*fspb.Label{{ServiceName: "client", Label: "linux"}}}),
	} {
		f.Add(m.Data.Value)
	}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		var info fspb.ClientInfoData
		count, err := services.CountElements(encoded, info.ProtoReflect().Descriptor())
		if count > services.MaxElements {
			t.Errorf("%d elements", count)
		}
		if err != nil || proto.Unmarshal(encoded, &info) != nil {
			return
		}
		if decoded := len(info.Labels) + len(info.Services); decoded > count {
			t.Errorf("%d elements were decoded, and %d counted", decoded, count)
		}
		m := &fspb.Message{
			Destination: &fspb.Address{ServiceName: "system"},
			Data:        &anypb.Any{TypeUrl: "type.googleapis.com/" + string(info.ProtoReflect().Descriptor().FullName()), Value: encoded},
		}
		if charged := services.PayloadElements(m); charged != count {
			t.Errorf("%d elements are charged for, and %d counted", charged, count)
		}
	})
}
