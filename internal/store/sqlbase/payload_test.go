package sqlbase

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// FuzzSplitMessage takes any message apart and puts it together again.
func FuzzSplitMessage(f *testing.F) {
	for _, m := range []*fspb.Message{
		{}, {MessageId: []byte("id"), Data: &anypb.Any{}}, {Data: &anypb.Any{TypeUrl: "t", Value: []byte("v")}, Background: true},
		{MessageType: "x", Annotations: &fspb.Annotations{Entries: []*fspb.Annotations_Entry{{Key: "k"}}}},
	} {
		encoded, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encoded)
	}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		m := &fspb.Message{}
		if proto.Unmarshal(encoded, m) != nil {
			return
		}
		p, err := encodeMessage(m)
		if err != nil {
			t.Fatal(err)
		}
		if (p.data == nil) != (m.Data == nil) {
			t.Errorf("data is %v of a message with data %v", p.data, m.Data)
		}
		joined := joinMessage(p.header, p.data)
		if len(joined) != p.size {
			t.Errorf("%d bytes joined, size says %d", len(joined), p.size)
		}
		got := &fspb.Message{}
		if err := proto.Unmarshal(joined, got); err != nil || !proto.Equal(got, m) {
			t.Errorf("%v comes back as %v, %v", m, got, err)
		}
		header := &fspb.Message{}
		if err := proto.Unmarshal(p.header, header); err != nil || header.Data != nil {
			t.Errorf("header %v, %v; want it without data", header, err)
		}
	})
}

func TestSplitDoesNotTouchItsInput(t *testing.T) {
	encoded, err := proto.Marshal(&fspb.Message{MessageId: []byte("id"), Data: &anypb.Any{Value: []byte("value")}, Background: true})
	if err != nil {
		t.Fatal(err)
	}
	before := bytes.Clone(encoded)
	if _, err := splitMessage(encoded); err != nil || !bytes.Equal(before, encoded) {
		t.Errorf("split changed its input, or failed: %v", err)
	}
	if _, err := splitMessage([]byte{0xff}); err == nil {
		t.Error("garbage was taken")
	}
}

func TestOversizedMessage(t *testing.T) { // G-16
	_, err := encodeMessage(&fspb.Message{Data: &anypb.Any{Value: make([]byte, store.MaxMessageBytes)}})
	if !errors.Is(err, store.ErrInvalid) {
		t.Errorf("error %v, want ErrInvalid", err)
	}
}
