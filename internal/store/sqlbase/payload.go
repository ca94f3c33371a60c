package sqlbase

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// dataField is the number of fleetspeak.Message.data.
const dataField protowire.Number = 7

// payload is a message as stored: encoded once, with its data apart, so that it can be sent without being decoded and
// listed without its data being read.
type payload struct {
	whole  []byte // the serialized message; nothing that is read from a table
	header []byte // the message without field data
	data   []byte // the serialized Any; nil when absent
	size   int    // of both together, as a message
}

// encodeMessage serializes a message and takes its data out.
func encodeMessage(m *fspb.Message) (payload, error) {
	encoded, err := proto.Marshal(m)
	if err != nil {
		return payload{}, fmt.Errorf("%w: message: %w", store.ErrInvalid, err)
	}
	if len(encoded) > store.MaxMessageBytes {
		return payload{}, fmt.Errorf("%w: message of %d bytes, at most %d", store.ErrInvalid, len(encoded), store.MaxMessageBytes)
	}
	return splitMessage(encoded)
}

func splitMessage(encoded []byte) (payload, error) {
	p := payload{whole: encoded, header: encoded, size: len(encoded)}
	for at := 0; at < len(encoded); {
		field, wireType, n := protowire.ConsumeTag(encoded[at:])
		if n < 0 {
			return payload{}, protowire.ParseError(n)
		}
		m := protowire.ConsumeFieldValue(field, wireType, encoded[at+n:])
		if m < 0 {
			return payload{}, protowire.ParseError(m)
		}
		end := at + n + m
		if field == dataField && wireType == protowire.BytesType { // a hostile message may have the number in another type
			p.data, _ = protowire.ConsumeBytes(encoded[at+n : end])
			p.header = append(encoded[:at:at], encoded[end:]...)
			return p, nil
		}
		at = end
	}
	return p, nil
}

// joinMessage puts a message together again, into memory of its own.
func joinMessage(header, data []byte) []byte {
	if data == nil {
		return append([]byte{}, header...)
	}
	joined := make([]byte, 0, len(header)+len(data)+8)
	joined = append(joined, header...)
	joined = protowire.AppendTag(joined, dataField, protowire.BytesType)
	return protowire.AppendBytes(joined, data)
}

// decodeMessage is joinMessage and unmarshalling.
func decodeMessage(header, data []byte) (*fspb.Message, error) {
	m := &fspb.Message{}
	if err := proto.Unmarshal(joinMessage(header, data), m); err != nil {
		return nil, fmt.Errorf("stored message: %w", err)
	}
	return m, nil
}

// dataArg is the column of the data: NULL when absent, which an empty Any is not.
func (p payload) dataArg() any {
	if p.data == nil {
		return nil
	}
	return p.data
}

// present is data that is not NULL, as a driver may return it when it is empty.
func present(data []byte) []byte {
	if data == nil {
		return []byte{}
	}
	return data
}
