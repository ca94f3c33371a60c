package channel

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// readAhead is how much is read at once, and what stays allocated. Small frames take one read instead of three.
	readAhead = 4 << 10
	// firstBody is where the buffer of a body starts.
	firstBody = 4 << 10
	// maxKeptBody is the largest buffer that is kept for the next body. Larger ones are rare.
	maxKeptBody = 64 << 10
)

// Config says how long a Reader waits.
type Config struct {
	// Timeout bounds each magic, counted from when it is asked for, and each part of a frame that has begun. 0 means
	// DefaultTimeout.
	Timeout time.Duration
	// FirstMagic is the deadline of the magic before the first frame. Zero means Timeout from when it is asked for.
	FirstMagic time.Time
	// Expired is called when a deadline passes and what is read from has no SetReadDeadline that works, as pipes on some
	// systems. It has to end the read, for instance by ending the peer, and is the only thing here that runs in a goroutine
	// of its own (a timer's). Nil means that such a stream has no deadlines.
	Expired func()
}

// Reader reads the messages of a peer. It reads ahead, so nobody else may read from the same stream.
type Reader struct {
	cfg     Config
	from    *bufio.Reader
	guard   guard
	trailer bool   // the magic of the last frame has not been read yet
	body    []byte // kept for the next one
	err     error  // the first one
}

// NewReader returns a reader of what comes from r. Where r has a SetReadDeadline, as files and connections do, the Reader
// uses it, and nobody else may.
func NewReader(r io.Reader, cfg Config) *Reader {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	return &Reader{cfg: cfg, from: bufio.NewReaderSize(r, readAhead), guard: newGuard(r, cfg.Expired)}
}

// ReadMagic reads the magic before the first frame. An end of the stream is always an error there.
func (r *Reader) ReadMagic() error {
	if r.err != nil {
		return r.err
	}
	deadline := r.cfg.FirstMagic
	if deadline.IsZero() {
		deadline = r.soon()
	}
	return r.fail("read first magic", r.readMagic(deadline))
}

// Next reads one message. It waits for its first byte without limit. A peer that leaves between frames makes the error
// io.EOF with nothing around it. Every error is final.
func (r *Reader) Next() (*fspb.Message, error) {
	if r.err != nil {
		return nil, r.err
	}
	if r.trailer {
		if err := r.readMagic(r.soon()); err != nil {
			return nil, r.fail("read magic", err)
		}
		r.trailer = false
	}
	size, err := r.readSize()
	if err == io.EOF {
		r.err = io.EOF
		return nil, io.EOF
	}
	if err != nil {
		return nil, r.fail("read message size", err)
	}
	body, err := r.readBody(size)
	if err != nil {
		return nil, r.fail("read message", err)
	}
	m := &fspb.Message{}
	if err := proto.Unmarshal(body, m); err != nil { // copies what it keeps
		return nil, r.fail("", fmt.Errorf("%w: %w", ErrMessage, err))
	}
	r.trailer = true
	return m, nil
}

// fail keeps and returns the error that ends the stream.
func (r *Reader) fail(operation string, err error) error {
	if err != nil && operation != "" {
		err = fmt.Errorf("%s: %w", operation, err)
	}
	r.err = err
	return err
}

func (r *Reader) soon() time.Time { return time.Now().Add(r.cfg.Timeout) }

func (r *Reader) readMagic(deadline time.Time) error {
	b, err := r.peek(magicSize, deadline)
	if err != nil {
		return noEOF(err)
	}
	if got := binary.LittleEndian.Uint32(b); got != Magic {
		return fmt.Errorf("%w %#08x", ErrMagic, got)
	}
	_, err = r.from.Discard(magicSize)
	return err
}

// readSize waits for a frame to begin and returns the size of its body. io.EOF is an end before it.
func (r *Reader) readSize() (int, error) {
	if _, err := r.peek(1, time.Time{}); err != nil {
		return 0, err
	}
	b, err := r.peek(sizeSize, r.soon())
	if err != nil {
		return 0, noEOF(err)
	}
	size := binary.LittleEndian.Uint32(b)
	if size > MaxMessage {
		return 0, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, size, MaxMessage)
	}
	_, err = r.from.Discard(sizeSize)
	return int(size), err
}

// peek returns the next n bytes, by the deadline if it is not zero. What is there already costs no deadline.
func (r *Reader) peek(n int, deadline time.Time) ([]byte, error) {
	if r.from.Buffered() < n {
		r.guard.arm(deadline)
	}
	b, err := r.from.Peek(n)
	return b, r.guard.check(err)
}

// readBody reads a body. The result is valid until the next call.
func (r *Reader) readBody(size int) ([]byte, error) {
	if r.from.Buffered() < size {
		r.guard.arm(r.soon())
	}
	body, err := r.fill(r.body, size)
	if err = r.guard.check(err); err != nil {
		return nil, noEOF(err)
	}
	if len(body) <= maxKeptBody {
		r.body = body
	}
	return body[:size], nil
}

// fill reads size bytes into body, or into a longer one if it is too short, and returns that.
func (r *Reader) fill(body []byte, size int) ([]byte, error) {
	for read := 0; read < size; {
		if read == len(body) {
			body = grow(body, size)
		}
		n, err := io.ReadFull(r.from, body[read:min(len(body), size)])
		read += n
		if err != nil {
			return nil, err
		}
	}
	return body, nil
}

// grow returns a copy of body of twice its length, or of size if that is more than enough.
func grow(body []byte, size int) []byte {
	length := max(firstBody, 2*len(body))
	if length > maxKeptBody {
		length = min(length, size)
	}
	larger := make([]byte, length)
	copy(larger, body)
	return larger
}

// noEOF turns the end of a stream into what it is inside of a frame.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
