package identity

import (
	"crypto/rand"
	"encoding/hex"
)

// BroadcastIDSize is the length of a broadcast ID in bytes.
const BroadcastIDSize = 8

// BroadcastID names a broadcast.
type BroadcastID [BroadcastIDSize]byte

// NewBroadcastID returns a random ID.
func NewBroadcastID() BroadcastID {
	var id BroadcastID
	for id.IsNil() {
		rand.Read(id[:])
	}
	return id
}

// BroadcastIDFromBytes reads the binary form, 8 bytes or none. Any other length is an error.
func BroadcastIDFromBytes(b []byte) (BroadcastID, error) {
	var id BroadcastID
	err := setBytes(id[:], "broadcast ID", b)
	return id, err
}

// ParseBroadcastID reads the text form: 16 hex digits of either case, "nil", or nothing.
func ParseBroadcastID(text string) (BroadcastID, error) {
	var id BroadcastID
	if err := setText(id[:], "broadcast ID", text); err != nil {
		return BroadcastID{}, err
	}
	return id, nil
}

// IsNil reports whether the ID names no broadcast.
func (id BroadcastID) IsNil() bool { return id == BroadcastID{} }

// Bytes returns a copy of the binary form, nil for the nil ID.
func (id BroadcastID) Bytes() []byte {
	if id.IsNil() {
		return nil
	}
	return id[:]
}

// String returns the text form.
func (id BroadcastID) String() string {
	if id.IsNil() {
		return nilText
	}
	return hex.EncodeToString(id[:])
}
