package wire

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/adler32"
	"io"
	"sync"
)

// zlibHeader opens a zlib stream: deflate, 32 KiB window, default level.
const zlibHeader = "\x78\x9c"

// maxKeptOutput is the largest output buffer, in bytes, that stays with a pooled compressor.
const maxKeptOutput = 1 << 20

// Deflater compresses a zlib stream piece by piece: what one call to Write gets goes out compressed, flushed, and in one
// call to Write of what is below. With a RecordWriter above, that is a record.
//
// A compressor takes most of a mebibyte. So it is borrowed for each Write and starts without history, which costs small
// records some of their compression, and an idle agent nothing. It is not safe for concurrent use.
type Deflater struct {
	w      io.Writer
	sum    hash.Hash32
	opened bool // the header is out
	err    error
}

// NewDeflater returns a Deflater on w. Nothing is written yet.
func NewDeflater(w io.Writer) *Deflater { return &Deflater{w: w, sum: adler32.New()} }

// Write compresses p and sends it. An error is final.
func (d *Deflater) Write(p []byte) (int, error) {
	if len(p) == 0 && d.err == nil {
		return 0, nil
	}
	err := d.send(func(c *compressor) error {
		d.sum.Write(p) // never fails
		if _, err := c.flate.Write(p); err != nil {
			return err
		}
		return c.flate.Flush()
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close ends the zlib stream. It does not close what is below.
func (d *Deflater) Close() error {
	err := d.send(func(c *compressor) error {
		if err := c.flate.Close(); err != nil {
			return err
		}
		c.out.Write(binary.BigEndian.AppendUint32(nil, d.sum.Sum32()))
		return nil
	})
	if err == nil {
		d.err = io.ErrClosedPipe
	}
	return err
}

// send writes in one piece what compress makes.
func (d *Deflater) send(compress func(*compressor) error) error {
	if d.err != nil {
		return d.err
	}
	c := compressors.Get().(*compressor)
	defer c.giveBack()
	c.out.Reset()
	if !d.opened {
		c.out.WriteString(zlibHeader)
		d.opened = true
	}
	c.flate.Reset(&c.out)
	err := compress(c)
	if err == nil {
		_, err = d.w.Write(c.out.Bytes())
	}
	if err != nil {
		d.err = fmt.Errorf("write compressed: %w", err)
	}
	return d.err
}

// AppendDeflated appends body as a complete zlib stream to dst: the body of a poll. A server of the original reads it
// only when it comes without a length (G-05).
func AppendDeflated(dst, body []byte) []byte {
	c := compressors.Get().(*compressor)
	defer c.giveBack()
	c.out.Reset()
	c.flate.Reset(&c.out)
	// Neither fails on a buffer.
	_, _ = c.flate.Write(body)
	_ = c.flate.Close()
	dst = append(append(dst, zlibHeader...), c.out.Bytes()...)
	return binary.BigEndian.AppendUint32(dst, adler32.Checksum(body))
}

// compressor is what a Deflater borrows.
type compressor struct {
	flate *flate.Writer
	out   bytes.Buffer
}

var compressors = sync.Pool{New: func() any {
	w, err := flate.NewWriter(io.Discard, flate.DefaultCompression)
	if err != nil {
		panic(err) // the level is a constant that flate knows
	}
	return &compressor{flate: w}
}}

func (c *compressor) giveBack() {
	if c.out.Cap() > maxKeptOutput {
		c.out = bytes.Buffer{}
	}
	compressors.Put(c)
}
