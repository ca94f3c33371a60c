package server

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/farspeak/farspeak/internal/wire"
)

const (
	// maxChunkLine bounds the line before a chunk, extensions included.
	maxChunkLine = 256
	// maxChunk bounds the announced size of a chunk. Nothing is allocated for it; it only keeps the arithmetic sane.
	maxChunk = 1 << 40
)

// errChunk says that the framing of a request body is broken.
var errChunk = fmt.Errorf("%w: malformed chunk", wire.ErrProtocol)

// body decodes the framing of an HTTP/1.1 request body that never ends. Unlike the library's decoder it can tell whether it
// would have to wait (ready), keeps nothing in memory while it waits but a few numbers, and reads from a buffer that may be
// given away meanwhile.
type body struct {
	buffer  *bufio.Reader // nil while the session is parked; the stream puts one in place before anything is read
	chunked bool
	left    int64 // of the current chunk, or of the whole body when it is not chunked
	inside  bool  // between a chunk's line and the CRLF behind its data
	err     error // the first one, io.EOF at the end
}

// Read returns decoded bytes. It waits for them.
func (b *body) Read(p []byte) (int, error) {
	for b.err == nil && b.left == 0 {
		b.err = b.advance()
	}
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.buffer.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err == io.EOF && (b.chunked || b.left > 0) {
		err = io.ErrUnexpectedEOF
	}
	if b.left == 0 && b.inside && b.buffer.Buffered() >= len("\r\n") && err == nil {
		err = b.endChunk() // so that nothing is left in the buffer when nothing is to come
	}
	if err != nil {
		b.err = err
	}
	return n, nil
}

// advance reads the framing up to the next byte of data.
func (b *body) advance() error {
	if !b.chunked {
		return io.EOF
	}
	if b.inside {
		return b.endChunk()
	}
	line, err := b.buffer.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull) || len(line) > maxChunkLine:
		return errChunk
	case err != nil:
		return noEOF(err)
	}
	size, err := chunkSize(line)
	if err != nil {
		return err
	}
	if size == 0 {
		return io.EOF // trailers, if any, concern nobody
	}
	b.left, b.inside = size, true
	return nil
}

func (b *body) endChunk() error {
	var end [2]byte
	if _, err := io.ReadFull(b.buffer, end[:]); err != nil {
		return noEOF(err)
	}
	b.inside = false
	if string(end[:]) != "\r\n" {
		return errChunk
	}
	return nil
}

// chunkSize parses the line before a chunk: hex digits, then perhaps an extension.
func chunkSize(line []byte) (int64, error) {
	line = bytes.TrimRight(line, "\r\n")
	line, _, _ = bytes.Cut(line, []byte(";"))
	line = bytes.TrimRight(line, " \t")
	if len(line) == 0 {
		return 0, errChunk
	}
	var size int64
	for _, c := range line {
		digit := bytes.IndexByte([]byte("0123456789abcdef"), c|0x20)
		if c >= '0' && c <= '9' {
			digit = int(c - '0')
		}
		if digit < 0 || (c < '0' || c > '9') && digit < 10 {
			return 0, errChunk
		}
		if size = size<<4 | int64(digit); size > maxChunk {
			return 0, errChunk
		}
	}
	return size, nil
}

// ready says whether Read has something to return without waiting for the peer: data, the end, or an error.
func (b *body) ready() bool {
	for b.err == nil && b.left == 0 {
		if !b.canAdvance() {
			return false
		}
		b.err = b.advance()
	}
	return b.err != nil || b.buffer.Buffered() > 0
}

// canAdvance says whether the next piece of framing is in the buffer as a whole.
func (b *body) canAdvance() bool {
	if !b.chunked {
		return true
	}
	buffered, _ := b.buffer.Peek(b.buffer.Buffered()) // cannot fail: it asks for what is there
	if b.inside {
		return len(buffered) >= len("\r\n")
	}
	return bytes.IndexByte(buffered, '\n') >= 0 || len(buffered) > maxChunkLine
}

// noEOF turns the end of a connection into what it is inside of a body.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
