package fleet

import (
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/farspeak/farspeak/internal/identity"
)

// Names that the protocol fixes.
const (
	systemService = "system"
	ackType       = "MessageAck"
	ackTypeURL    = "type.googleapis.com/fleetspeak.MessageAckData"

	// PayloadTypeURL is the type of a load message's payload: bytes that need no decoding.
	PayloadTypeURL = "type.googleapis.com/google.protobuf.BytesValue"
	// MessageType is the type of load messages.
	MessageType = "Load"
)

// inboxSize is how many messages a service of a client takes before it has to return tokens.
const inboxSize = 100

// appendBytes appends a field that is bytes, a string, or a serialized message.
func appendBytes[T []byte | string](dst []byte, number protowire.Number, value T) []byte {
	dst = protowire.AppendTag(dst, number, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(len(value)))
	return append(dst, value...)
}

// appendNested appends a field whose content is made by build.
func appendNested(dst []byte, number protowire.Number, build func([]byte) []byte) []byte {
	dst = protowire.AppendTag(dst, number, protowire.BytesType)
	start := len(dst)
	dst = build(dst)
	// The length goes in front of what is written already; moving it is cheaper than building it apart.
	size := len(dst) - start
	var length [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(length[:], uint64(size))
	dst = append(dst, length[:n]...)
	copy(dst[start+n:], dst[start:start+size])
	copy(dst[start:], length[:n])
	return dst
}

// contact is what a record of a client says.
type contact struct {
	nonce  uint64
	tokens []tokenGrant
	labels []string
}

type tokenGrant struct {
	service string
	count   uint64
}

// appendRecordBody appends a WrappedContactData. messages appends the messages, each as field 2.
func (c contact) appendRecordBody(dst []byte, messages func([]byte) []byte) []byte {
	dst = appendNested(dst, 1, func(dst []byte) []byte {
		if c.nonce != 0 {
			dst = protowire.AppendTag(dst, 1, protowire.VarintType)
			dst = protowire.AppendVarint(dst, c.nonce)
		}
		if messages != nil {
			dst = messages(dst)
		}
		now := time.Now()
		dst = appendNested(dst, 3, func(dst []byte) []byte {
			dst = protowire.AppendTag(dst, 1, protowire.VarintType)
			dst = protowire.AppendVarint(dst, uint64(now.Unix()))
			dst = protowire.AppendTag(dst, 2, protowire.VarintType)
			return protowire.AppendVarint(dst, uint64(now.Nanosecond()))
		})
		for _, t := range c.tokens {
			dst = appendNested(dst, 6, func(dst []byte) []byte {
				dst = appendBytes(dst, 1, t.service)
				dst = protowire.AppendTag(dst, 2, protowire.VarintType)
				return protowire.AppendVarint(dst, t.count)
			})
		}
		return dst
	})
	for _, l := range c.labels {
		dst = appendBytes(dst, 3, l)
	}
	return dst
}

// appendMessage appends a message of a client to a server-side service, as field 2 of a ContactData.
func appendMessage(dst []byte, client identity.ClientID, from, to, kind string, id []byte, typeURL string, value func([]byte) []byte) []byte {
	return appendNested(dst, 2, func(dst []byte) []byte {
		dst = appendNested(dst, 2, func(dst []byte) []byte {
			dst = appendBytes(dst, 1, client[:])
			return appendBytes(dst, 2, from)
		})
		dst = appendBytes(dst, 3, id)
		dst = appendNested(dst, 4, func(dst []byte) []byte { return appendBytes(dst, 2, to) })
		dst = appendBytes(dst, 5, kind)
		return appendNested(dst, 7, func(dst []byte) []byte {
			dst = appendBytes(dst, 1, typeURL)
			return appendNested(dst, 2, value)
		})
	})
}

// appendPayloadMessage appends a load message of a client.
func appendPayloadMessage(dst []byte, client identity.ClientID, from, to string, s Stamp, size int) []byte {
	var id [16]byte
	binary.LittleEndian.PutUint64(id[:], s.Run)
	binary.LittleEndian.PutUint64(id[8:], s.Sequence)
	return appendMessage(dst, client, from, to, MessageType, id[:], PayloadTypeURL, func(dst []byte) []byte {
		return appendNested(dst, 1, func(dst []byte) []byte { return s.AppendPayload(dst, size) })
	})
}

// appendAcks appends the message that acknowledges received ones.
func appendAcks(dst []byte, client identity.ClientID, id []byte, ids []identity.MessageID) []byte {
	return appendMessage(dst, client, systemService, systemService, ackType, id, ackTypeURL, func(dst []byte) []byte {
		for i := range ids {
			dst = appendBytes(dst, 1, ids[i][:])
		}
		return dst
	})
}

// reply is what a record of a server says. Its parts lie in the record's memory.
type reply struct {
	nonce    uint64
	ackIndex uint64
	farewell bool // done_sending
}

// received is a message to a client.
type received struct {
	id      []byte
	service []byte
	payload []byte // of the Any, as it stands
}

// parseReply takes a ContactData apart and calls take for each message.
func parseReply(b []byte, take func(received) error) (r reply, err error) {
	err = eachField(b, func(number protowire.Number, value uint64, content []byte) error {
		switch number {
		case 1:
			r.nonce = value
		case 2:
			m, err := parseMessage(content)
			if err != nil {
				return err
			}
			return take(m)
		case 4:
			r.ackIndex = value
		case 5:
			r.farewell = value != 0
		}
		return nil
	})
	return r, err
}

func parseMessage(b []byte) (m received, err error) {
	err = eachField(b, func(number protowire.Number, _ uint64, content []byte) error {
		switch number {
		case 1:
			m.id = content
		case 4:
			return eachField(content, func(number protowire.Number, _ uint64, content []byte) error {
				if number == 2 {
					m.service = content
				}
				return nil
			})
		case 7:
			return eachField(content, func(number protowire.Number, _ uint64, content []byte) error {
				if number == 2 {
					m.payload = content
				}
				return nil
			})
		}
		return nil
	})
	return m, err
}

// UnwrapPayload takes the BytesValue off a payload.
func UnwrapPayload(b []byte) []byte {
	var payload []byte
	_ = eachField(b, func(number protowire.Number, _ uint64, content []byte) error { // what is malformed is not ours
		if number == 1 {
			payload = content
		}
		return nil
	})
	return payload
}

// eachField calls visit for each field of a serialized message, with its value when it is a varint and its content when
// it is bytes.
func eachField(b []byte, visit func(number protowire.Number, value uint64, content []byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("malformed record: %w", protowire.ParseError(n))
		}
		b = b[n:]
		var value uint64
		var content []byte
		switch kind {
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			content, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return fmt.Errorf("malformed record: %w", protowire.ParseError(n))
		}
		b = b[n:]
		if err := visit(number, value, content); err != nil {
			return err
		}
	}
	return nil
}
