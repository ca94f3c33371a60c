package peer

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// maxServerRecord is what this agent takes from a server in one record: an unmodified server may send a hundred messages
// of 2 MiB.
const maxServerRecord = 256 << 20

// Magic opens the stream of an agent.
func Magic() []byte { return []byte{0x01, 0x10, 0xee, 0xf1} }

// AppendVarint appends a length as it stands before a record: seven bits a byte, the lowest first.
func AppendVarint(b []byte, v uint64) []byte {
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

var errVarint = errors.New("the length before a record has more than 64 bits")

func readVarint(r io.ByteReader) (uint64, error) {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		c, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v, nil
		}
	}
	return 0, errVarint
}

// Wrap makes the body of a record or a poll.
func Wrap(contact *fspb.ContactData, labels []string) ([]byte, error) {
	data, err := proto.Marshal(contact)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(&fspb.WrappedContactData{ContactData: data, ClientLabels: labels})
}

// chunkWriter makes each write an HTTP chunk.
type chunkWriter struct{ io.Writer }

func (w chunkWriter) Write(p []byte) (int, error) {
	chunk := fmt.Appendf(nil, "%x\r\n", len(p))
	chunk = append(append(chunk, p...), "\r\n"...)
	if _, err := w.Writer.Write(chunk); err != nil {
		return 0, err
	}
	return len(p), nil
}

// recordWriter writes the stream of an agent: the magic before record 0, a length before each, and when compressed a
// flush after each, so that the server can decode what it has.
type recordWriter struct {
	body    io.Writer // what is written to it arrives at once
	deflate *zlib.Writer
	started bool
}

func newRecordWriter(body io.Writer, deflate bool) *recordWriter {
	w := &recordWriter{body: body}
	if deflate {
		w.deflate = zlib.NewWriter(body)
	}
	return w
}

// writeRecord writes length and content apart, as agents do.
func (w *recordWriter) writeRecord(record []byte) error {
	parts := [][]byte{AppendVarint(nil, uint64(len(record))), record}
	if !w.started {
		w.started = true
		parts = append([][]byte{Magic()}, parts...)
	}
	return w.writeRaw(parts...)
}

// writeRaw writes bytes inside the compression, whatever they mean.
func (w *recordWriter) writeRaw(parts ...[]byte) error {
	out := w.body
	if w.deflate != nil {
		out = w.deflate
	}
	for _, part := range parts {
		if len(part) == 0 {
			continue
		}
		if _, err := out.Write(part); err != nil {
			return err
		}
	}
	if w.deflate != nil {
		return w.deflate.Flush()
	}
	return nil
}

// ReadContact reads one record of a server.
func ReadContact(r *bufio.Reader) (*fspb.ContactData, error) {
	record, err := ReadRecord(r)
	if err != nil {
		return nil, err
	}
	contact := &fspb.ContactData{}
	if err := proto.Unmarshal(record, contact); err != nil {
		return nil, fmt.Errorf("record of %d bytes: %w", len(record), err)
	}
	return contact, nil
}

// ReadRecord reads the bytes of one record. io.EOF means that the stream ended before it.
func ReadRecord(r *bufio.Reader) ([]byte, error) {
	size, err := readVarint(r)
	if err != nil {
		return nil, err
	}
	if size > maxServerRecord {
		return nil, fmt.Errorf("a record of %d bytes is announced", size)
	}
	var body bytes.Buffer
	if _, err := io.CopyN(&body, r, int64(size)); err != nil {
		return nil, fmt.Errorf("record of %d bytes: %w", size, noEOF(err))
	}
	return body.Bytes(), nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
