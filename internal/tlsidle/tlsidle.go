// Package tlsidle makes a TLS connection small while it waits.
//
// A connection of crypto/tls keeps for its life what only its handshake needed: the buffers into which the peer's messages
// were read, the peer's certificate in parsed form, the secrets that further keys could be derived from. Of a server with
// many idle connections that is nearly half of the memory. crypto/tls offers no way to give it up, so this package reaches
// into tls.Conn.
//
// It does so with care: the fields are found by name and checked by type. When one of them is not what this package knows,
// Shrink does nothing, which costs memory and breaks nothing; a test fails then, so that a new version of Go is noticed.
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

// The fields of tls.Conn that Shrink looks at, and whether all of them are known. Conn's own comments say who owns them:
// handshaken is atomic; the next three belong to the reader; the others do not change after the handshake.
var (
	handshaken     = fieldOf[atomic.Bool]("isHandshakeComplete")
	input          = fieldOf[bytes.Reader]("input") // what was decrypted and not read yet, in rawInput's memory
	rawInput       = fieldOf[bytes.Buffer]("rawInput")
	hand           = fieldOf[bytes.Buffer]("hand") // handshake messages that were not handled yet
	certificates   = fieldOf[[]*x509.Certificate]("peerCertificates")
	exportMaterial = fieldOf[func(string, []byte, int) ([]byte, error)]("ekm")
	allFieldsKnown = handshaken.known && input.known && rawInput.known && hand.known && certificates.known && exportMaterial.known
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

func fieldOf[T any](name string) field[T] {
	f, found := reflect.TypeFor[tls.Conn]().FieldByName(name)
	return field[T]{offset: f.Offset, known: found && f.Type == reflect.TypeFor[T]()}
}

// of is only for known fields.
func (f field[T]) of(c *tls.Conn) *T { return (*T)(unsafe.Add(unsafe.Pointer(c), f.offset)) }
