package fleet

import (
	"bufio"
	"bytes"
	"net/http/httputil"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// decodeChunk reads what a server would read of a chunk: one record.
func decodeChunk(t *testing.T, chunk []byte, magic bool) (*fspb.WrappedContactData, *fspb.ContactData) {
	t.Helper()
	records := wire.NewRecordReader(httputil.NewChunkedReader(bufio.NewReader(bytes.NewReader(chunk))), wire.FromClient(nil))
	if magic {
		if err := records.ReadMagic(); err != nil {
			t.Fatal(err)
		}
	}
	record, err := records.Next()
	if err != nil {
		t.Fatal(err)
	}
	defer record.Release()
	var wrapped fspb.WrappedContactData
	if err := proto.Unmarshal(record.Bytes(), &wrapped); err != nil {
		t.Fatal(err)
	}
	var contact fspb.ContactData
	if err := proto.Unmarshal(wrapped.ContactData, &contact); err != nil {
		t.Fatal(err)
	}
	return &wrapped, &contact
}

func TestFirstRecord(t *testing.T) {
	says := contact{nonce: 7, tokens: []tokenGrant{{"system", 100}, {"load", 99}}, labels: []string{"load", "x"}}
	wrapped, got := decodeChunk(t, says.start(), true)
	if diff := cmp.Diff([]string{"load", "x"}, wrapped.ClientLabels); diff != "" {
		t.Errorf("labels: %s", diff)
	}
	if got.SequencingNonce != 7 || got.ClientClock.GetSeconds() == 0 || len(got.Messages) != 0 {
		t.Errorf("contact is %v", got)
	}
	if diff := cmp.Diff(map[string]uint64{"system": 100, "load": 99}, got.AllowedMessages); diff != "" {
		t.Errorf("tokens: %s", diff)
	}
}

func TestRecordWithMessages(t *testing.T) {
	id := identity.NewClientID()
	acked := []identity.MessageID{identity.NewMessageID(), identity.NewMessageID()}
	stamp := Stamp{Kind: Up, Index: 3, Run: 11, Sequence: 5, Sent: 1234567890123}
	for _, size := range []int{StampSize, 200, 100_000} {
		c := getChunk()
		c.record(contact{}, func(dst []byte) []byte {
			dst = appendPayloadMessage(dst, id, "load", "noop", stamp, size)
			return appendAcks(dst, id, acked[0][:16], acked)
		})
		_, got := decodeChunk(t, c.bytes, false)
		c.free()
		if len(got.Messages) != 2 {
			t.Fatalf("%d messages, want 2", len(got.Messages))
		}
		m := got.Messages[0]
		if string(m.Source.GetClientId()) != string(id[:]) || m.Source.GetServiceName() != "load" ||
			m.Destination.GetServiceName() != "noop" || m.MessageType != MessageType || len(m.SourceMessageId) != 16 {
			t.Errorf("message is %v", m)
		}
		var value wrapperspb.BytesValue
		if err := m.Data.UnmarshalTo(&value); err != nil {
			t.Fatal(err)
		}
		if parsed, ok := ParseStamp(value.Value); !ok || parsed != stamp || len(value.Value) != size {
			t.Errorf("payload of %d bytes has stamp %v, %t", len(value.Value), parsed, ok)
		}
		var acks fspb.MessageAckData
		if err := got.Messages[1].Data.UnmarshalTo(&acks); err != nil {
			t.Fatal(err)
		}
		if len(acks.MessageIds) != 2 || string(acks.MessageIds[1]) != string(acked[1][:]) {
			t.Errorf("acks are %x", acks.MessageIds)
		}
	}
}

func TestParseReply(t *testing.T) {
	stamp := Stamp{Kind: Down, Index: 1, Run: 2, Sequence: 3, Sent: 4}
	data, err := anypb.New(wrapperspb.Bytes(stamp.AppendPayload(nil, 64)))
	if err != nil {
		t.Fatal(err)
	}
	id := identity.NewMessageID()
	body, err := proto.Marshal(&fspb.ContactData{
		SequencingNonce: 9, AckIndex: 2, DoneSending: true,
		Messages: []*fspb.Message{{
			MessageId: id[:], Source: &fspb.Address{ServiceName: "a"}, Destination: &fspb.Address{ClientId: make([]byte, 8), ServiceName: "load"},
			MessageType: "Load", Data: data,
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var messages []received
	got, err := parseReply(body, func(m received) error {
		messages = append(messages, m)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got != (reply{nonce: 9, ackIndex: 2, farewell: true}) {
		t.Errorf("reply is %+v", got)
	}
	if len(messages) != 1 || string(messages[0].id) != string(id[:]) || string(messages[0].service) != "load" {
		t.Fatalf("messages are %+v", messages)
	}
	if parsed, ok := ParseStamp(UnwrapPayload(messages[0].payload)); !ok || parsed != stamp {
		t.Errorf("stamp is %v, %t", parsed, ok)
	}
}

func FuzzParseReply(f *testing.F) {
	body, err := proto.Marshal(&fspb.ContactData{SequencingNonce: 9, Messages: []*fspb.Message{{MessageId: make([]byte, 32)}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Fuzz(func(t *testing.T, b []byte) {
		count := 0
		_, err := parseReply(b, func(m received) error {
			count++
			ParseStamp(UnwrapPayload(m.payload))
			return nil
		})
		var contact fspb.ContactData
		if proto.Unmarshal(b, &contact) == nil && err != nil {
			t.Errorf("%x is a ContactData and was refused: %v", b, err)
		}
	})
}
