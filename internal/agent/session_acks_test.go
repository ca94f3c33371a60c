package agent_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

func numbers(r record) []byte {
	var out []byte
	for _, m := range find(r, "numbered") {
		out = append(out, m.SourceMessageId...)
	}
	return out
}

// Against a server whose acknowledgements say nothing about their record, one record is under way at a time, and what was
// not acknowledged is sent again, with the same IDs and in the same order.
func TestUnacknowledgedRecordsAreSentAgain(t *testing.T) { // G-06
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "echo")
	n := s.open()
	r.send("echo", 1, fspb.Message_MEDIUM)
	if got := numbers(receive(t, n.records, "record 1")); !bytes.Equal(got, []byte{1}) {
		t.Fatalf("record 1 has %v", got)
	}
	r.send("echo", 2, fspb.Message_MEDIUM)
	r.send("echo", 3, fspb.Message_LOW)
	r.send("echo", 4, fspb.Message_HIGH)
	nothing(t, n.records, 300*time.Millisecond, "record 2 before the ack of record 1")
	n.finish()
	n = s.open()
	if got := numbers(n.first); !bytes.Equal(got, []byte{4, 1, 2, 3}) {
		t.Errorf("record 0 of the next session has %v, want high, medium in order, low", got)
	}
	r.send("echo", 5, fspb.Message_MEDIUM)
	if got := numbers(receive(t, n.records, "record 1")); !bytes.Equal(got, []byte{5}) {
		t.Errorf("record 1 has %v", got)
	}
	n.ack(1)
	r.send("echo", 6, fspb.Message_MEDIUM)
	if got := numbers(receive(t, n.records, "record 2")); !bytes.Equal(got, []byte{6}) {
		t.Errorf("record 2 has %v", got)
	}
}

func TestAckOfRecordThatWasNotSentEndsTheSession(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "echo")
	n := s.open()
	r.send("echo", 1, fspb.Message_MEDIUM)
	receive(t, n.records, "record 1")
	n.ack(2)
	if got := numbers(s.open().first); !bytes.Equal(got, []byte{1}) {
		t.Errorf("the next session begins with %v", got)
	}
}

// A server that promises ordered acknowledgements gets several records at once.
func TestOrderedAcksAllowAWindow(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.header.Set(wire.FeaturesHeader, wire.FeatureOrderedAcks)
	r := start(t, s, nil, "echo")
	n := s.open()
	for i := range byte(3) {
		r.send("echo", i, fspb.Message_MEDIUM)
		if got := numbers(receive(t, n.records, "a record")); !bytes.Equal(got, []byte{i}) {
			t.Errorf("record has %v, want %d", got, i)
		}
	}
	n.ack(1)
	n.ack(2)
	r.send("echo", 3, fspb.Message_MEDIUM)
	receive(t, n.records, "record 4")
	n.finish()
	if got := numbers(s.open().first); !bytes.Equal(got, []byte{2, 3}) {
		t.Errorf("the next session begins with %v, want those without an ack", got)
	}
}
