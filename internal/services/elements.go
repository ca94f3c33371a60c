package services

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// MaxElements bounds the fields of what a client sends, those of nested messages included: of a record, and of the data of
// one message to the system service. Decoded, an empty message takes a hundred times the two bytes that it takes on the
// wire: a record of 20 MiB would fill gigabytes (G-03). A full record of a real agent has about two thousand.
const MaxElements = 50_000

// Reasons why fields cannot be counted.
var (
	ErrTooManyElements = fmt.Errorf("more than %d fields", MaxElements)
	ErrEncoding        = errors.New("malformed protocol buffer")
)

// CountElements counts the fields of an encoded message, at every level that its type knows. The bytes of an Any are one
// field: see PayloadElements.
func CountElements(encoded []byte, of protoreflect.MessageDescriptor) (int, error) {
	left := MaxElements
	err := countElements(encoded, of, &left)
	return MaxElements - left, err
}

// countElements takes the fields of an encoded message from left.
func countElements(encoded []byte, of protoreflect.MessageDescriptor, left *int) error {
	for len(encoded) > 0 {
		if *left == 0 {
			return ErrTooManyElements
		}
		*left--
		number, kind, size := protowire.ConsumeTag(encoded)
		if size < 0 {
			return ErrEncoding
		}
		encoded = encoded[size:]
		if size = protowire.ConsumeFieldValue(number, kind, encoded); size < 0 {
			return ErrEncoding
		}
		if field := of.Fields().ByNumber(number); field != nil && field.Message() != nil && kind == protowire.BytesType {
			nested, _ := protowire.ConsumeBytes(encoded) // cannot fail: the value was measured
			if err := countElements(nested, field.Message(), left); err != nil {
				return err
			}
		}
		encoded = encoded[size:]
	}
	return nil
}

// PayloadElements is how many fields the data of a message will have here: none, unless the system service decodes it. Data
// that it refuses for its fields counts as far as it was looked at, which is MaxElements at most.
func PayloadElements(m *fspb.Message) int {
	if m.GetDestination().GetServiceName() != systemName || m.GetData() == nil {
		return 0
	}
	data, err := protoregistry.GlobalTypes.FindMessageByURL(m.Data.TypeUrl)
	if err != nil {
		return 0 // nothing that is decoded
	}
	count, _ := CountElements(m.Data.Value, data.Descriptor()) // whoever decodes it finds what is wrong
	return count
}
