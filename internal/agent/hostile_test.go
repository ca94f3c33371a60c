package agent_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// A record that would take a hundred times its bytes costs the server its session, and the agent nothing.
func TestAmplifyingRecordEndsTheSession(t *testing.T) { // G-03
	t.Parallel()
	s := newFakeServer(t)
	start(t, s, nil, "echo")
	n := s.open()
	empty := bytes.Repeat([]byte{0x12, 0}, wire.MaxServerElements+1) // messages
	n.sendRaw(append(binary.AppendUvarint(nil, uint64(len(empty))), empty...))
	for range n.records { // up to the end of the body
	}
	s.open()
}

// What the agent says about a message does not grow with the names that a server gives it.
func TestLongNamesAreCut(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	start(t, s, nil)
	n := s.open()
	records := n.ackAll()
	long := strings.Repeat("\x01", 1<<20)
	for _, m := range []*fspb.Message{to(n, long, "x", nil), to(n, "system", long, nil)} {
		n.push(m)
		failure := unpack(t, await(t, records, "MessageError"), &fspb.MessageErrorData{})
		if !bytes.Equal(failure.MessageId, m.MessageId) || len(failure.Error) > 1000 {
			t.Errorf("message %x failed with %d bytes", failure.MessageId, len(failure.Error))
		}
	}
}
