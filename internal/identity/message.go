package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
)

// MessageIDSize is the length of a message ID in bytes.
const MessageIDSize = 32

// MessageID names a message; a repeat of the message has the same one.
type MessageID [MessageIDSize]byte

// NewMessageID returns a random ID, for a message that nobody named yet.
func NewMessageID() MessageID {
	var id MessageID
	for id.IsNil() {
		rand.Read(id[:])
	}
	return id
}

// MessageIDFromBytes reads the binary form, 32 bytes or none. Any other length is an error.
func MessageIDFromBytes(b []byte) (MessageID, error) {
	var id MessageID
	err := setBytes(id[:], "message ID", b)
	return id, err
}

// ParseMessageID reads the text form: 64 hex digits of either case, "nil", or nothing.
func ParseMessageID(text string) (MessageID, error) {
	var id MessageID
	if err := setText(id[:], "message ID", text); err != nil {
		return MessageID{}, err
	}
	return id, nil
}

// MessageIDFor returns the ID of a message that came from a client: the SHA-256 of client ID, source service and the
// source's own ID with a zero byte between them. The client must be the authenticated one, not the one that the
// message claims, or a client could take the place of another's messages.
//
// A service name that contains a zero byte can be confused with a shorter one followed by a longer source ID. Both
// belong to the same client, so that client can only mislead itself.
func MessageIDFor(client ClientID, sourceService string, sourceMessageID []byte) MessageID {
	// Names and source IDs of ordinary length leave the buffer on the stack.
	buf := make([]byte, 0, 128)
	buf = append(buf, client[:]...)
	buf = append(buf, 0)
	buf = append(buf, sourceService...)
	buf = append(buf, 0)
	buf = append(buf, sourceMessageID...)
	return sha256.Sum256(buf)
}

// IsNil reports whether the ID names no message.
func (id MessageID) IsNil() bool { return id == MessageID{} }

// Bytes returns a copy of the binary form, nil for the nil ID.
func (id MessageID) Bytes() []byte {
	if id.IsNil() {
		return nil
	}
	return id[:]
}

// String returns the text form.
func (id MessageID) String() string {
	if id.IsNil() {
		return nilText
	}
	return hex.EncodeToString(id[:])
}

// RekeyMessageID returns the ID of the request that asks a blacklisted client to take a new key. It follows from the
// client, so that however often and by whichever daemon the request is made, there is one.
func RekeyMessageID(client ClientID) MessageID {
	return sha256.Sum256(append([]byte("farspeak rekey request\x00"), client[:]...))
}
