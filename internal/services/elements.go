package services

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/farspeak/farspeak/internal/elements"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// MaxElements bounds the fields of what a client sends, those of nested messages included: of a record, and of the data of
// one message to the system service. Decoded, an empty message takes a hundred times the two bytes that it takes on the
// wire: a record of 20 MiB would fill gigabytes (G-03). A full record of a real agent has about two thousand.
const MaxElements = 50_000

// CountElements counts the fields of an encoded message, of which there may be MaxElements. The bytes of an Any are one
// field: see PayloadElements.
func CountElements(encoded []byte, of protoreflect.MessageDescriptor) (int, error) {
	count, err := elements.Count(encoded, of, MaxElements)
	if errors.Is(err, elements.ErrTooMany) {
		err = fmt.Errorf("%w: more than %d", err, MaxElements)
	}
	return count, err
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
