package wire

import (
	"bufio"
	"compress/flate"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/adler32"
	"io"
	"sync"
)

const (
	// window is how far back deflate may refer.
	window = 32 << 10
	// historySlack is by how much the history may outgrow the window before it is cut, so that small reads do not each
	// move the whole window.
	historySlack = 4 << 10
)

// Inflater decompresses a zlib stream that is written piece by piece. What a sender has flushed (Z_SYNC_FLUSH) can be read
// without any further input.
//
// A decompressor takes about 50 KiB, which an idle session should not hold. So between two flushed pieces the Inflater
// gives it to a pool and keeps only the history, which the next piece may refer to: as much as was decompressed so far,
// 36 KiB at most. This is unavoidable, since a sender need not tell whether it will refer to it; an agent that sends
// little, or one with our Deflater that has sent little, costs little.
//
// How much comes out is not limited here: the reader of records or bodies limits what it takes. It is not safe for
// concurrent use.
type Inflater struct {
	source  flateSource
	decoder *decoder // nil while nothing is being decompressed
	history []byte   // the end of what came out
	sum     hash.Hash32
	err     error // the first one, io.EOF after the checksum
}

// decoder is the part of an Inflater that it holds only while there is something to decompress.
type decoder struct {
	flate  io.ReadCloser // with flate.Resetter
	buffer *bufio.Reader
}

var decoders = sync.Pool{New: func() any {
	return &decoder{flate: flate.NewReader(eofReader{}), buffer: bufio.NewReaderSize(eofReader{}, firstBuffer)}
}}

// eofReader stands for the input of a decoder in the pool. With ReadByte, package flate needs no buffer before it.
type eofReader struct{}

func (eofReader) Read([]byte) (int, error) { return 0, io.EOF }
func (eofReader) ReadByte() (byte, error)  { return 0, io.EOF }

// NewInflater reads the two bytes of the zlib header from r and returns a reader of what follows. A header that is none is
// an ErrProtocol.
func NewInflater(r io.Reader) (*Inflater, error) {
	var header [2]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, fmt.Errorf("read zlib header: %w", err)
	}
	const (
		method     = 8    // deflate
		dictionary = 0x20 // a preset dictionary, which the protocol has none of
	)
	if header[0]&0x0f != method || header[0]>>4 > 7 || binary.BigEndian.Uint16(header[:])%31 != 0 || header[1]&dictionary != 0 {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, zlib.ErrHeader)
	}
	return &Inflater{source: flateSource{r: r}, sum: adler32.New()}, nil
}

// Read decompresses into p. A stream that ends after a flush, without zlib's checksum, ends with io.EOF too: a peer that
// hangs up between records has no reason to finish the compression. One that ends anywhere else gives
// io.ErrUnexpectedEOF.
func (z *Inflater) Read(p []byte) (int, error) {
	for z.err == nil {
		if len(p) == 0 {
			return 0, nil
		}
		n, err := z.read(p)
		z.remember(p[:n])
		switch {
		case errors.Is(err, errPause):
			z.park()
		case err != nil:
			z.finish(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, z.err
}

// Close gives memory back. It does not close what the Inflater reads from.
func (z *Inflater) Close() error {
	z.park()
	z.history = nil
	if z.err == nil {
		z.err = io.ErrClosedPipe
	}
	return nil
}

func (z *Inflater) read(p []byte) (int, error) {
	if z.decoder == nil {
		if err := z.wake(); err != nil {
			return 0, err
		}
	}
	return z.decoder.flate.Read(p)
}

// wake waits for the first byte of the next piece, and only then takes a decoder.
func (z *Inflater) wake() error {
	if err := z.source.await(); err != nil {
		return err
	}
	z.decoder = decoders.Get().(*decoder)
	z.decoder.buffer.Reset(z.source.r)
	z.source.buffer = z.decoder.buffer
	return z.decoder.flate.(flate.Resetter).Reset(&z.source, z.history)
}

// park gives the decoder back.
func (z *Inflater) park() {
	if z.decoder == nil {
		return
	}
	_ = z.decoder.flate.(flate.Resetter).Reset(eofReader{}, nil) // never fails
	z.decoder.buffer.Reset(eofReader{})
	decoders.Put(z.decoder)
	z.decoder, z.source.buffer = nil, nil
}

// finish turns the end of the deflate stream, or an error in it, into the end of this one.
func (z *Inflater) finish(err error) {
	if err == io.EOF && z.decoder != nil {
		err = z.checksum()
	}
	var corrupt flate.CorruptInputError
	var internal flate.InternalError
	if errors.As(err, &corrupt) || errors.As(err, &internal) {
		err = fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	z.err = err
	z.park()
	z.history = nil
}

// checksum reads what stands behind the last block.
func (z *Inflater) checksum() error {
	var want [4]byte
	if _, err := io.ReadFull(&z.source, want[:]); err != nil {
		return noEOF(err)
	}
	if binary.BigEndian.Uint32(want[:]) != z.sum.Sum32() {
		return fmt.Errorf("%w: %w", ErrProtocol, zlib.ErrChecksum)
	}
	return io.EOF
}

// remember adds to checksum and history.
func (z *Inflater) remember(p []byte) {
	if len(p) == 0 {
		return
	}
	z.sum.Write(p) // never fails
	if len(p) >= window {
		z.history = append(z.history[:0], p[len(p)-window:]...)
		return
	}
	if len(z.history)+len(p) > window+historySlack {
		z.history = z.history[:copy(z.history, z.history[len(z.history)+len(p)-window:])]
	}
	z.history = append(z.history, p...)
}

// errPause says that the decompressor has nothing left to do until more input comes.
var errPause = errors.New("wait for the next block")

// flateSource is the input of a decompressor. It knows a block border when it sees one: package flate reads bits byte by
// byte, but the length and the content of a stored block by Read, and after them stands the header of the next block. A
// flush ends in an empty stored block. So when Read is followed by ReadByte and no input is there, everything before is
// decompressed, no bits are left over, and the decompressor can be replaced by another one with the same history. Then
// ReadByte does not wait but returns errPause. Were flate to read in another way, there would be no pauses, only more
// memory in use.
type flateSource struct {
	r      io.Reader
	buffer *bufio.Reader // of the decoder
	first  [1]byte       // read while there was no buffer
	have   bool          // first is to be consumed
	stored bool          // the last bytes went out by Read
}

// await blocks until there is input, without a buffer.
func (s *flateSource) await() error {
	if s.have {
		return nil
	}
	if _, err := io.ReadFull(s.r, s.first[:]); err != nil {
		return err
	}
	s.have = true
	return nil
}

func (s *flateSource) ReadByte() (byte, error) {
	if s.have {
		s.have, s.stored = false, false
		return s.first[0], nil
	}
	if s.stored && s.buffer.Buffered() == 0 {
		return 0, errPause
	}
	s.stored = false
	return s.buffer.ReadByte()
}

func (s *flateSource) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if s.have {
		s.have = false
		p[0] = s.first[0]
		return 1, nil
	}
	n, err := s.buffer.Read(p)
	s.stored = s.stored || n > 0
	return n, err
}
