package wire

import (
	"crypto/rand"
	"encoding/binary"
)

// NewNonce returns a sequencing nonce: eight random bytes read as a little-endian number. It is never zero, because an
// agent without a nonce sends zero.
func NewNonce() uint64 {
	var b [8]byte
	for {
		rand.Read(b[:]) // never fails
		if nonce := binary.LittleEndian.Uint64(b[:]); nonce != 0 {
			return nonce
		}
	}
}
