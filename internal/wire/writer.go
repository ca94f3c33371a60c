package wire

import (
	"encoding/binary"
	"fmt"
	"io"
)

// WriterConfig says what a RecordWriter writes. ToServer and ToClient make it.
type WriterConfig struct {
	// MaxRecord is the largest body, in bytes.
	MaxRecord int
	// Magic puts the magic before the first record.
	Magic bool
}

// ToServer is for the records of an agent.
func ToServer() WriterConfig { return WriterConfig{MaxRecord: MaxClientRecord, Magic: true} }

// ToClient is for the records of a server. They hold several messages up to MaxServerRecord, but a single larger one has
// to pass too, so the hard limit is what agents take.
func ToClient() WriterConfig { return WriterConfig{MaxRecord: MaxReadServerRecord} }

// RecordWriter writes records, each with one call to Write of what is below it: one record in one chunk, one TLS record,
// or one flush of a Deflater. It is not safe for concurrent use.
type RecordWriter struct {
	w     io.Writer
	cfg   WriterConfig
	magic bool  // still to be written
	err   error // of the first write that failed; part of a record may be out
}

// NewRecordWriter returns a writer of records to w.
func NewRecordWriter(w io.Writer, cfg WriterConfig) *RecordWriter {
	return &RecordWriter{w: w, cfg: cfg, magic: cfg.Magic}
}

// WriteRecord writes one record. A body over the limit is ErrTooLarge, and nothing is written. Any other error is final.
func (w *RecordWriter) WriteRecord(body []byte) error {
	if w.err != nil {
		return w.err
	}
	if len(body) > w.cfg.MaxRecord {
		return fmt.Errorf("%w: record of %d bytes, at most %d are allowed", ErrTooLarge, len(body), w.cfg.MaxRecord)
	}
	buffer := getBuffer(magicSize + binary.MaxVarintLen64 + len(body))
	defer putBuffer(buffer)
	record := (*buffer)[:0]
	if w.magic {
		record = AppendMagic(record)
		w.magic = false
	}
	if _, err := w.w.Write(AppendRecord(record, body)); err != nil {
		w.err = fmt.Errorf("write record: %w", err)
	}
	return w.err
}

// AppendRecord appends a record, length and body, to dst.
func AppendRecord(dst, body []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(body))), body...)
}
