package wire

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var (
	errTooManyElements = fmt.Errorf("%w: too many fields", ErrProtocol)
	errEncoding        = fmt.Errorf("%w: malformed protocol buffer", ErrProtocol) // protobuf's own error quotes the peer
)

// Unmarshal parses a message that has at most so many fields, those of nested messages included. Decoded, an empty message
// takes a hundred times the two bytes that it takes on the wire, so that a limit of bytes alone bounds no memory. What an
// Any holds is one field.
func Unmarshal(encoded []byte, into proto.Message, maxElements int) error {
	if err := CheckElements(encoded, into.ProtoReflect().Descriptor(), maxElements); err != nil {
		return err
	}
	if err := proto.Unmarshal(encoded, into); err != nil {
		return errEncoding
	}
	return nil
}

// CheckElements is the first half of Unmarshal, for messages that somebody else parses.
func CheckElements(encoded []byte, of protoreflect.MessageDescriptor, most int) error {
	_, err := takeElements(encoded, of, most)
	return err
}

// takeElements returns what is left of most after the fields of an encoded message, at every level that its type knows.
func takeElements(encoded []byte, of protoreflect.MessageDescriptor, most int) (left int, err error) {
	left = most
	for len(encoded) > 0 {
		if left--; left < 0 {
			return 0, errTooManyElements
		}
		number, kind, size := protowire.ConsumeTag(encoded)
		if size < 0 {
			return 0, errEncoding
		}
		encoded = encoded[size:]
		if size = protowire.ConsumeFieldValue(number, kind, encoded); size < 0 {
			return 0, errEncoding
		}
		if field := of.Fields().ByNumber(number); field != nil && field.Message() != nil && kind == protowire.BytesType {
			nested, _ := protowire.ConsumeBytes(encoded) // cannot fail: the value was measured
			if left, err = takeElements(nested, field.Message(), left); err != nil {
				return 0, err
			}
		}
		encoded = encoded[size:]
	}
	return left, nil
}
