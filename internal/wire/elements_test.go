package wire_test

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

func TestUnmarshalCountsFieldsOfAllLevels(t *testing.T) {
	data := &fspb.ContactData{
		SequencingNonce: 1, // one
		Messages: []*fspb.Message{ // two, and below
			{Source: &fspb.Address{ServiceName: "a"}, Data: &anypb.Any{Value: []byte{0x12, 0, 0x12, 0}}}, // two, one and one
			{},
		},
		AllowedMessages: map[string]uint64{"a": 1}, // one, and two below
	}
	encoded, err := proto.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	const count = 1 + 2 + (2 + 1 + 1) + 1 + 2
	got := &fspb.ContactData{}
	if err := wire.Unmarshal(encoded, got, count); err != nil || !proto.Equal(got, data) {
		t.Errorf("with as many as there are: %v, %v", got, err)
	}
	if err := wire.Unmarshal(encoded, got, count-1); !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("with one less: %v", err)
	}
}

func TestUnmarshalRefusesAmplification(t *testing.T) { // G-03
	empty := bytes.Repeat([]byte{0x12, 0}, wire.MaxServerElements+1) // messages
	if err := wire.Unmarshal(empty, &fspb.ContactData{}, wire.MaxServerElements); !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("%d empty messages: %v", wire.MaxServerElements+1, err)
	}
	// The densest message that the admin interface takes passes, or it would come again for ever.
	dense, err := proto.Marshal(&fspb.ContactData{Messages: []*fspb.Message{{
		Annotations: &fspb.Annotations{Entries: make([]*fspb.Annotations_Entry, wire.MaxMessage/2-100)},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	data := &fspb.ContactData{}
	if err := wire.Unmarshal(dense, data, wire.MaxServerElements); err != nil {
		t.Errorf("the densest message: %v", err)
	}
}

func TestUnmarshalOfGarbage(t *testing.T) {
	for name, encoded := range map[string][]byte{
		"cut tag":    {0x80},
		"cut value":  {0x12, 5, 0},
		"no UTF-8":   {0x12, 6, 0x22, 4, 0x12, 2, 0xff, 0xff},
		"cut nested": {0x12, 2, 0x22, 1},
	} {
		if err := wire.Unmarshal(encoded, &fspb.ContactData{}, 100); !errors.Is(err, wire.ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
