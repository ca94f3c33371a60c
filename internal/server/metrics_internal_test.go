package server

import (
	"strconv"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Payloads are counted as the original does: type URL and value, and nothing of what is around them.
func TestSentPayloadsAreMeasured(t *testing.T) {
	for name, test := range map[string]struct {
		data *anypb.Any
		want float64
	}{
		"absent": {nil, 0},
		"empty":  {&anypb.Any{}, 0},
		"full":   {&anypb.Any{TypeUrl: "type/x", Value: make([]byte, 1000)}, 1006},
	} {
		m := newMetrics(prometheus.NewRegistry())
		encoded, err := proto.Marshal(&fspb.Message{
			MessageId: make([]byte, 32), Source: &fspb.Address{ServiceName: "backend"}, MessageType: "Task", Data: test.data,
		})
		if err != nil {
			t.Fatal(err)
		}
		m.sent([]*store.PendingMessage{{Service: "shell", Type: "Task", Encoded: encoded}})
		labels := []string{"backend", "shell", "Task", ""}
		if got := testutil.ToFloat64(m.sentBytes.WithLabelValues(labels...)); got != test.want {
			t.Errorf("%s: %v bytes, want %v", name, got, test.want)
		}
		if got := testutil.ToFloat64(m.sentMessages.WithLabelValues(labels...)); got != 1 {
			t.Errorf("%s: %v messages, want 1", name, got)
		}
	}
}

// Each kind and status is counted for itself, however often it comes.
func TestPollsAreCountedByKindAndStatus(t *testing.T) {
	m := newMetrics(prometheus.NewRegistry())
	times := map[pollKey]int{{200, pollTypeStreamFrom}: 3, {200, pollTypeStreamTo}: 2, {503, pollTypeStreamFrom}: 1}
	for key, count := range times {
		for range count {
			m.observePoll(key.kind).done(key.status)
		}
	}
	for key, count := range times {
		if got := testutil.ToFloat64(m.polls.WithLabelValues(strconv.Itoa(key.status), key.kind, "false")); got != float64(count) {
			t.Errorf("%v: counted %v times, want %d", key, got, count)
		}
	}
}

// BenchmarkObservePoll measures what measuring a record costs.
func BenchmarkObservePoll(b *testing.B) {
	m := newMetrics(prometheus.NewRegistry())
	b.ReportAllocs()
	for b.Loop() {
		o := m.observePoll(pollTypeStreamFrom)
		o.read(100)
		o.done(200)
	}
}
