package wire

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/farspeak/farspeak/internal/elements"
)

// Unmarshal parses a message that has at most so many fields, as package elements counts them.
func Unmarshal(encoded []byte, into proto.Message, maxElements int) error {
	if err := CheckElements(encoded, into.ProtoReflect().Descriptor(), maxElements); err != nil {
		return err
	}
	if err := proto.Unmarshal(encoded, into); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, elements.ErrEncoding) // protobuf's own error quotes the peer
	}
	return nil
}

// CheckElements is the first half of Unmarshal, for messages that somebody else parses.
func CheckElements(encoded []byte, of protoreflect.MessageDescriptor, most int) error {
	if _, err := elements.Count(encoded, of, most); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}
