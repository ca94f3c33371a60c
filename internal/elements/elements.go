// Package elements counts the fields of encoded protocol buffers before they are decoded.
//
// Decoded, an empty message takes a hundred times the two bytes that it takes on the wire, so that a limit of bytes alone
// bounds no memory (G-03).
package elements

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Reasons why fields cannot be counted. Neither quotes the peer.
var (
	ErrTooMany  = errors.New("too many fields")
	ErrEncoding = errors.New("malformed protocol buffer")
)

// Count counts the fields of an encoded message, at every level that its type knows; there may be most of them. The bytes
// of an Any are one field. With an error it counts as far as it looked.
func Count(encoded []byte, of protoreflect.MessageDescriptor, most int) (int, error) {
	left := most
	err := take(encoded, of, &left)
	return most - left, err
}

// take takes the fields of an encoded message from left.
func take(encoded []byte, of protoreflect.MessageDescriptor, left *int) error {
	for len(encoded) > 0 {
		if *left == 0 {
			return ErrTooMany
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
			if err := take(nested, field.Message(), left); err != nil {
				return err
			}
		}
		encoded = encoded[size:]
	}
	return nil
}
