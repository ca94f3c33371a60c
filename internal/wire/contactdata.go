package wire

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// Fields of ContactData that a server sets.
const (
	nonceField       protowire.Number = 1
	messagesField    protowire.Number = 2
	ackIndexField    protowire.Number = 4
	doneSendingField protowire.Number = 5
)

// MessageSize is what a serialized message of n bytes adds to a ContactData.
func MessageSize(n int) int { return protowire.SizeTag(messagesField) + protowire.SizeBytes(n) }

// AppendContactData appends a serialized ContactData of a nonce and messages to dst. The messages are serialized already:
// they come from the store as they go to the client, and are not decoded on the way.
func AppendContactData(dst []byte, nonce uint64, encodedMessages [][]byte) []byte {
	if nonce != 0 {
		dst = protowire.AppendTag(dst, nonceField, protowire.VarintType)
		dst = protowire.AppendVarint(dst, nonce)
	}
	for _, message := range encodedMessages {
		dst = protowire.AppendTag(dst, messagesField, protowire.BytesType)
		dst = protowire.AppendBytes(dst, message)
	}
	return dst
}

// AppendAck appends a record that acknowledges the agent's record of that index. Record 0 is acknowledged by its answer;
// the first index is 1.
func AppendAck(dst []byte, index uint64) []byte {
	return appendFlagRecord(dst, ackIndexField, index)
}

// AppendDoneSending appends the record by which a server announces that it sends no more messages. It goes out once on a
// stream: a second one crashes the original's agent (G-59).
func AppendDoneSending(dst []byte) []byte {
	return appendFlagRecord(dst, doneSendingField, 1)
}

// appendFlagRecord appends a record of a ContactData with a single number in it.
func appendFlagRecord(dst []byte, field protowire.Number, value uint64) []byte {
	dst = protowire.AppendVarint(dst, uint64(protowire.SizeTag(field)+protowire.SizeVarint(value)))
	dst = protowire.AppendTag(dst, field, protowire.VarintType)
	return protowire.AppendVarint(dst, value)
}
