package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// maxEmptyReads is how often in a row a reader may return nothing without an error.
const maxEmptyReads = 100

// ReaderConfig says what a RecordReader takes. FromClient and FromServer make it.
type ReaderConfig struct {
	// MaxRecord is the largest body, in bytes.
	MaxRecord int
	// AllowEmpty lets records of length zero pass.
	AllowEmpty bool
	// Memory pays for the part of a record beyond its first 4 KiB. Those are free, so that small records still pass
	// when large ones have to wait; the number of connections bounds them. Nil means that nothing is accounted for.
	Memory Memory
}

// FromClient is for the records that a server reads.
func FromClient(memory Memory) ReaderConfig {
	return ReaderConfig{MaxRecord: MaxClientRecord, Memory: memory}
}

// FromServer is for the records that an agent reads. An empty one is an empty ContactData.
func FromServer(memory Memory) ReaderConfig {
	return ReaderConfig{MaxRecord: MaxReadServerRecord, AllowEmpty: true, Memory: memory}
}

// Record is the body of one record, or of a poll. It belongs to who got it, until Release.
type Record struct {
	body growing
	size int
}

// Bytes is the body. It is valid until Release.
func (r *Record) Bytes() []byte { return r.body.bytes()[:r.size] }

// Release gives the memory back. The bytes may not be used any more. A second call does nothing.
func (r *Record) Release() {
	r.body.free()
	r.size = 0
}

// RecordReader reads records from a stream. It reads no byte beyond the record it returns. Lengths are read byte by byte,
// so what it reads from should have a buffer of its own. It is not safe for concurrent use; Records are independent of
// it, and may be released by anyone in any order.
type RecordReader struct {
	r       io.Reader
	cfg     ReaderConfig
	err     error // the first one; the place in the stream is lost after it
	scratch [magicSize]byte
}

// NewRecordReader returns a reader of the records that come from r.
func NewRecordReader(r io.Reader, cfg ReaderConfig) *RecordReader {
	return &RecordReader{r: r, cfg: cfg}
}

// ReadMagic reads the magic, which stands before the first record of an agent.
func (r *RecordReader) ReadMagic() error {
	if r.err != nil {
		return r.err
	}
	if _, err := io.ReadFull(r.r, r.scratch[:]); err != nil {
		return r.fail("read magic", err)
	}
	if got := binary.LittleEndian.Uint32(r.scratch[:]); got != Magic {
		return r.fail("", fmt.Errorf("%w %#08x", ErrMagic, got))
	}
	return nil
}

// Next reads one record. At the end of the stream, on the border between records, the error is io.EOF and nothing around
// it; inside a record io.ErrUnexpectedEOF is in it. Every error is final.
func (r *RecordReader) Next() (*Record, error) {
	if r.err != nil {
		return nil, r.err
	}
	length, err := r.readLength()
	if err != nil {
		return nil, r.fail("read record length", err)
	}
	switch {
	case length == 0 && !r.cfg.AllowEmpty:
		return nil, r.fail("", ErrEmptyRecord)
	case length > uint64(max(r.cfg.MaxRecord, 0)):
		return nil, r.fail("", fmt.Errorf("%w: record of %d bytes, at most %d are allowed", ErrTooLarge, length, r.cfg.MaxRecord))
	}
	record := &Record{body: growing{memory: r.cfg.Memory}}
	if err := record.readFull(r.r, int(length)); err != nil {
		record.Release()
		return nil, r.fail("read record", err)
	}
	return record, nil
}

// Close closes what the records come from, when that can be closed: a decompressor gives its memory back.
func (r *RecordReader) Close() error {
	if closer, ok := r.r.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}

// fail keeps and returns the error that ends the stream.
func (r *RecordReader) fail(operation string, err error) error {
	if operation != "" && err != io.EOF {
		err = fmt.Errorf("%s: %w", operation, err)
	}
	r.err = err
	return err
}

// readLength reads a varint. Only its shortest form counts: others have no use but to confuse.
func (r *RecordReader) readLength() (uint64, error) {
	var length uint64
	for i := range binary.MaxVarintLen64 {
		if _, err := io.ReadFull(r.r, r.scratch[:1]); err != nil {
			if i > 0 {
				err = noEOF(err)
			}
			return 0, err
		}
		b := r.scratch[0]
		switch {
		case i == binary.MaxVarintLen64-1 && b > 1:
			return 0, fmt.Errorf("%w: more than 64 bits", ErrLength)
		case i > 0 && b == 0:
			return 0, fmt.Errorf("%w: padded", ErrLength)
		}
		length |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return length, nil
		}
	}
	return 0, ErrLength // not reached: the tenth byte is at most 1
}

// readFull reads a body of length bytes.
func (r *Record) readFull(from io.Reader, length int) error {
	for r.size < length {
		if r.size == len(r.body.bytes()) {
			if err := r.body.grow(r.size, length); err != nil {
				return err
			}
		}
		free := r.body.bytes()[r.size:]
		n, err := io.ReadFull(from, free[:min(len(free), length-r.size)])
		r.size += n
		if err != nil {
			return noEOF(err)
		}
	}
	return nil
}

// ReadAll reads a body without framing, such as a poll's, to its end. A body of more than limit bytes is ErrTooLarge. ctx
// is looked at between reads; a deadline of the transport has to bound each of them.
func ReadAll(ctx context.Context, from io.Reader, limit int, memory Memory) (*Record, error) {
	record := &Record{body: growing{memory: memory}}
	if err := record.readToEnd(ctx, from, limit); err != nil {
		record.Release()
		return nil, fmt.Errorf("read body: %w", err)
	}
	return record, nil
}

func (r *Record) readToEnd(ctx context.Context, from io.Reader, limit int) error {
	for empty := 0; empty < maxEmptyReads; {
		if err := ctx.Err(); err != nil {
			return err
		}
		if r.size == len(r.body.bytes()) {
			if err := r.body.grow(r.size, limit+1); err != nil {
				return err
			}
		}
		n, err := from.Read(r.body.bytes()[r.size:])
		r.size += n
		switch {
		case r.size > limit:
			return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if empty++; n > 0 {
			empty = 0
		}
	}
	return io.ErrNoProgress
}

// noEOF turns the end of a stream into what it is inside of a record.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
