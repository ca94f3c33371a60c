package server

import (
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
