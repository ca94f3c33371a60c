// Package tlsidle makes a TLS connection small while it waits, and says whether it has to wait.
//
// A connection of crypto/tls keeps for its life what only its handshake needed: the buffers into which the peer's messages
// were read, the peer's certificate in parsed form, the secrets that further keys could be derived from. Of a server with
// many idle connections that is nearly half of the memory. crypto/tls offers no way to give it up, so this package reaches
// into tls.Conn.
//
// It does so with care: the fields are found by name and checked by type. When one of them is not what this package knows,
// Shrink does nothing and Drained knows nothing, which costs memory and time and breaks nothing; a test fails then, so that a
// new version of Go is noticed.
package tlsidle

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"reflect"
	"sync/atomic"
	"unsafe"
)

// The fields of tls.Conn that are looked at, and whether all of them are known. Conn's own comments say who owns them:
// handshaken is atomic; the next four belong to the reader; the others do not change after the handshake.
var (
	handshaken     = fieldOf[atomic.Bool]("isHandshakeComplete")
	input          = fieldOf[bytes.Reader]("input") // what was decrypted and not read yet, in rawInput's memory
	rawInput       = fieldOf[bytes.Buffer]("rawInput")
	hand           = fieldOf[bytes.Buffer]("hand") // handshake messages that were not handled yet
	failure        = fieldOf[error]("in", "err")   // what ended the reading
	certificates   = fieldOf[[]*x509.Certificate]("peerCertificates")
	exportMaterial = fieldOf[func(string, []byte, int) ([]byte, error)]("ekm")
	allFieldsKnown = handshaken.known && input.known && rawInput.known && hand.known && failure.known &&
		certificates.known && exportMaterial.known
	errShrunk      = errors.New("tlsidle: this connection exports no keying material any more")
	exportNoLonger = func(string, []byte, int) ([]byte, error) { return nil, errShrunk }
)

// Shrink gives up what a connection does not need while it waits for its peer. It belongs to the reader of c, between two
// calls of Read. What has arrived and was not read yet stays. Later reads take memory as they need it.
//
// Afterwards the state of c has no certificates of the peer, and exports no keying material.
func Shrink(c *tls.Conn) {
	if !allFieldsKnown || !handshaken.of(c).Load() {
		return
	}
	if input := input.of(c); input.Len() == 0 {
		*input = bytes.Reader{}
		release(rawInput.of(c))
	}
	release(hand.of(c))
	*certificates.of(c) = nil
	*exportMaterial.of(c) = exportNoLonger
}

// Drained says that Read of c would read from the connection below: c holds nothing that it has read from there and not handed
// on yet, no part of a record and no error. It belongs to the reader of c. False may also mean that it cannot be known.
func Drained(c *tls.Conn) bool {
	return allFieldsKnown && handshaken.of(c).Load() &&
		input.of(c).Len() == 0 && rawInput.of(c).Len() == 0 && hand.of(c).Len() == 0 && *failure.of(c) == nil
}

// release gives up the memory of a buffer that is empty.
func release(b *bytes.Buffer) {
	if b.Len() == 0 {
		*b = bytes.Buffer{}
	}
}

// field is where a field of type T is in a tls.Conn.
type field[T any] struct {
	offset uintptr
	known  bool // there is one of that name and type
}

// fieldOf finds a field by its name, or by the names of the structs that it is in and its own.
func fieldOf[T any](path ...string) field[T] {
	within, offset := reflect.TypeFor[tls.Conn](), uintptr(0)
	for _, name := range path {
		if within.Kind() != reflect.Struct {
			return field[T]{}
		}
		f, found := within.FieldByName(name)
		if !found {
			return field[T]{}
		}
		within, offset = f.Type, offset+f.Offset
	}
	return field[T]{offset: offset, known: within == reflect.TypeFor[T]()}
}

// of is only for known fields.
func (f field[T]) of(c *tls.Conn) *T { return (*T)(unsafe.Add(unsafe.Pointer(c), f.offset)) }
