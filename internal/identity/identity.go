// Package identity names clients, messages and broadcasts.
//
// A client ID is the beginning of the SHA-256 of the client's public key, so whoever holds the key has the ID. It is a
// name and no proof: eight bytes can be made to collide, and where identity decides something the whole key counts.
//
// Each kind of ID has a type of its own and a fixed size. The zero value is the nil ID, "none": it is empty as bytes,
// prints as "nil", and reads back from both. Text is lower-case hex. IDs are comparable and serve as map keys.
//
// Everything here is a pure function of its arguments, the New functions excepted, which draw from crypto/rand.
package identity

import (
	"encoding/hex"
	"fmt"
)

// nilText is how a nil ID prints.
const nilText = "nil"

// setBytes fills an ID from its binary form; no bytes leave it nil.
func setBytes(id []byte, kind string, b []byte) error {
	if len(b) != 0 && len(b) != len(id) {
		return fmt.Errorf("%s of %d bytes, want %d", kind, len(b), len(id))
	}
	copy(id, b)
	return nil
}

// setText fills an ID from its text form. Text of the wrong length is refused unread: it may be long and hostile.
func setText(id []byte, kind, text string) error {
	if text == "" || text == nilText {
		return nil
	}
	if len(text) != hex.EncodedLen(len(id)) {
		return fmt.Errorf("%s of %d characters, want %d hex digits", kind, len(text), hex.EncodedLen(len(id)))
	}
	if _, err := hex.Decode(id, []byte(text)); err != nil {
		return fmt.Errorf("%s %q: %w", kind, text, err)
	}
	return nil
}
