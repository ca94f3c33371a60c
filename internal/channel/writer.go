package channel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// maxKeptFrame is the largest buffer that a Writer keeps between messages.
const maxKeptFrame = 64 << 10

// Writer writes messages to a peer. Its writes wait as long as the peer does not read: who needs an end of that sets a
// deadline on the stream, or closes it.
type Writer struct {
	to    io.Writer
	frame []byte // kept for the next one
	err   error  // the first one that may have cut a frame
}

// NewWriter returns a writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{to: w} }

// WriteMagic writes the magic before the first frame.
func (w *Writer) WriteMagic() error {
	return w.write("write first magic", appendMagic(w.frame[:0]))
}

// WriteMessage writes one message with all that belongs to it, in one Write. A message that is over the limit, or that
// cannot be serialized, is refused before anything is written; every other error is final.
func (w *Writer) WriteMessage(m *fspb.Message) error {
	if w.err != nil {
		return w.err
	}
	frame, err := AppendFrame(w.frame[:0], m)
	if err != nil {
		return err
	}
	if cap(frame) <= maxKeptFrame {
		w.frame = frame
	}
	return w.write("write message", frame)
}

func (w *Writer) write(operation string, b []byte) error {
	if w.err != nil {
		return w.err
	}
	if _, err := w.to.Write(b); err != nil {
		w.err = fmt.Errorf("%s: %w", operation, err)
	}
	return w.err
}

// AppendFrame appends size, body and magic of a message to dst. A message over MaxMessage is ErrTooLarge.
func AppendFrame(dst []byte, m *fspb.Message) ([]byte, error) {
	size := proto.Size(m)
	if size > MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, size, MaxMessage)
	}
	if need := sizeSize + size + magicSize; cap(dst)-len(dst) < need {
		dst = append(make([]byte, 0, len(dst)+need), dst...)
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(size))
	begin := len(dst)
	dst, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(dst, m)
	if err != nil {
		return nil, fmt.Errorf("serialize message: %w", err)
	}
	if len(dst)-begin != size {
		return nil, errors.New("serialize message: it changed meanwhile")
	}
	return appendMagic(dst), nil
}
