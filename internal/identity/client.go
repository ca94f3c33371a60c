package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
)

// ClientIDSize is the length of a client ID in bytes.
const ClientIDSize = 8

// ClientID names a client.
type ClientID [ClientIDSize]byte

// NewClientID returns a random ID, which belongs to no key.
func NewClientID() ClientID {
	var id ClientID
	for id.IsNil() {
		rand.Read(id[:])
	}
	return id
}

// ClientIDFromBytes reads the binary form, 8 bytes or none. Any other length is an error.
func ClientIDFromBytes(b []byte) (ClientID, error) {
	var id ClientID
	err := setBytes(id[:], "client ID", b)
	return id, err
}

// ParseClientID reads the text form: 16 hex digits of either case, "nil", or nothing.
func ParseClientID(text string) (ClientID, error) {
	var id ClientID
	if err := setText(id[:], "client ID", text); err != nil {
		return ClientID{}, err
	}
	return id, nil
}

// ClientIDFromKey returns the ID of the client that holds a public key of a kind that crypto/x509 can encode.
func ClientIDFromKey(key crypto.PublicKey) (ClientID, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return ClientID{}, fmt.Errorf("encode public key: %w", err)
	}
	return ClientIDFromSPKI(der), nil
}

// ClientIDFromSPKI returns the ID that belongs to the DER encoding of a SubjectPublicKeyInfo. It does not look inside:
// the caller vouches for the encoding, since another one of the same key gives another ID.
func ClientIDFromSPKI(der []byte) ClientID {
	sum := sha256.Sum256(der)
	return ClientID(sum[:ClientIDSize])
}

// IsNil reports whether the ID names nobody.
func (id ClientID) IsNil() bool { return id == ClientID{} }

// Bytes returns a copy of the binary form, nil for the nil ID.
func (id ClientID) Bytes() []byte {
	if id.IsNil() {
		return nil
	}
	return id[:]
}

// String returns the text form.
func (id ClientID) String() string {
	if id.IsNil() {
		return nilText
	}
	return hex.EncodeToString(id[:])
}
