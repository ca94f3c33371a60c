package wire

import (
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Encoding is how the body of a request is compressed. Responses never are.
type Encoding uint8

// The encodings of the protocol.
const (
	EncodingNone    Encoding = iota
	EncodingDeflate          // Content-Encoding: deflate, which is zlib (RFC 1950) and not raw deflate
)

// ErrUnsupportedEncoding says that a body is compressed in a way that the protocol does not know: HTTP status 415.
var ErrUnsupportedEncoding = errors.New("unsupported content encoding")

const contentEncoding = "Content-Encoding"

// DecodeEncoding reads the Content-Encoding of a request: absent or empty, or exactly "deflate". Case counts, and lists
// are not taken apart.
func DecodeEncoding(header http.Header) (Encoding, error) {
	switch name := header.Get(contentEncoding); name {
	case "":
		return EncodingNone, nil
	case "deflate":
		return EncodingDeflate, nil
	default:
		return EncodingNone, fmt.Errorf("%w %.32q", ErrUnsupportedEncoding, name)
	}
}

// SetHeader says in a request how its body is compressed.
func (e Encoding) SetHeader(header http.Header) {
	if e == EncodingDeflate {
		header.Set(contentEncoding, "deflate")
	}
}

// NewBody returns what a body holds: the bytes of r, decompressed as the encoding asks for. A bad zlib header is found
// at once and is an ErrProtocol. Closing a body gives memory back; it does not close r.
func NewBody(r io.Reader, encoding Encoding) (io.ReadCloser, error) {
	if encoding != EncodingDeflate {
		return io.NopCloser(r), nil
	}
	z, err := NewInflater(r)
	if err != nil {
		return nil, err // not z: a nil *Inflater is no nil io.ReadCloser
	}
	return z, nil
}
