package fleet

import (
	"encoding/binary"
	"strconv"
	"sync"

	"github.com/farspeak/farspeak/internal/wire"
)

const (
	// chunkFront is the room in front of a record's body, in bytes: for the size of the HTTP chunk, the magic and the
	// length of the record.
	chunkFront = 8 + 2 + 4 + binary.MaxVarintLen64
	// maxKeptChunk is the largest buffer that is kept for reuse, in bytes.
	maxKeptChunk = 1 << 20
)

// chunk is an HTTP chunk that holds one record. The body is built first; what stands before it depends on its length and
// is written in front of it.
type chunk struct {
	buffer []byte
	bytes  []byte // the chunk, in buffer
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

func getChunk() *chunk { return chunks.Get().(*chunk) }

func (c *chunk) free() {
	if cap(c.buffer) <= maxKeptChunk {
		chunks.Put(c)
	}
}

// record makes the chunk of one record.
func (c *chunk) record(says contact, messages func([]byte) []byte) { c.build(nil, says, messages) }

// start is the chunk with magic and record 0.
func (says contact) start() []byte {
	var c chunk
	c.build(wire.AppendMagic(nil), says, nil)
	return c.bytes
}

func (c *chunk) build(magic []byte, says contact, messages func([]byte) []byte) {
	if len(c.buffer) < chunkFront {
		c.buffer = make([]byte, chunkFront)
	}
	b := says.appendRecordBody(c.buffer[:chunkFront], messages)
	var front [chunkFront]byte
	head := append(front[:0], magic...)
	head = binary.AppendUvarint(head, uint64(len(b)-chunkFront))
	var line [chunkFront]byte
	size := strconv.AppendInt(line[:0], int64(len(head)+len(b)-chunkFront), 16)
	head = append(append(size, "\r\n"...), head...)
	copy(b[chunkFront-len(head):], head)
	c.buffer = append(b, "\r\n"...)
	c.bytes = c.buffer[chunkFront-len(head):]
}
