package agent

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// contact is what a record or poll is made of beside its messages.
type contact struct {
	nonce  uint64
	clock  time.Time
	tokens map[string]uint64
	labels []string
}

// encode makes the body of a record: a WrappedContactData. b may be nil. The messages are serialized already, and stand
// between the fields before and after them as the order of numbers wants it.
func (c contact) encode(b *batch) ([]byte, error) {
	var messages [][]byte
	if b != nil {
		for _, p := range b.parcels {
			messages = append(messages, p.raw)
		}
	}
	data := wire.AppendContactData(nil, c.nonce, messages)
	rest := &fspb.ContactData{ClientClock: timestamppb.New(c.clock), AllowedMessages: c.tokens}
	data, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(data, rest)
	if err != nil {
		return nil, fmt.Errorf("encode contact data: %w", err)
	}
	body, err := proto.Marshal(&fspb.WrappedContactData{ContactData: data, ClientLabels: c.labels})
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	return body, nil
}
