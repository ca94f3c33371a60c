package service

import (
	"os"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/channel"
)

// maxKeptBytes is what a pipe holds, unless a process enlarged it. Messages that are further back were read.
const maxKeptBytes = 64 << 10

// frameOverhead is what the protocol adds to a message: its size and the magic.
const frameOverhead = 8

// outflow is the agent's end of the pipe to a process. It remembers the messages that may still be in the pipe, so that
// those which the process did not live to read can be given to its successor (G-15).
//
// One goroutine writes; the other methods may be called from any.
type outflow struct {
	f      *os.File
	writer *channel.Writer // of the writing goroutine, as failed is
	failed bool            // a write did, so that nothing can follow

	mu      sync.Mutex
	written uint64 // bytes
	sent    []sentMessage
	closed  bool
	rest    *os.File // the other end, to ask how much is left when ours is closed; nil if that cannot be told
}

// sentMessage is a message and its place in the stream.
type sentMessage struct {
	*handover
	begin, end uint64
}

func newOutflow(f *os.File) *outflow {
	o := &outflow{f: f}
	o.writer = channel.NewWriter(o)
	return o
}

// Write implements io.Writer for the protocol's writer.
func (o *outflow) Write(b []byte) (int, error) {
	n, err := o.f.Write(b)
	o.failed = err != nil
	o.mu.Lock()
	defer o.mu.Unlock()
	o.written += uint64(n)
	return n, err
}

// send writes a message and settles it. An error means that the pipe is of no more use; the message is then one of the
// leftover.
func (o *outflow) send(h *handover) error {
	o.begin(h)
	err := o.writer.WriteMessage(h.message)
	if err != nil && o.failed {
		return err
	}
	if !h.isSettled() { // it is when an earlier process had it in its pipe already
		h.settle(err)
	}
	o.forget()
	return nil
}

func (o *outflow) begin(h *handover) {
	o.mu.Lock()
	defer o.mu.Unlock()
	size := proto.Size(h.message) + frameOverhead
	o.sent = append(o.sent, sentMessage{handover: h, begin: o.written, end: o.written + uint64(size)})
}

// forget drops the messages that the process has read.
func (o *outflow) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || len(o.sent) == 0 {
		return
	}
	waiting, known := unread(o.f)
	if !known {
		waiting = 0
	}
	read := o.written - min(o.written, uint64(waiting))
	if o.written > maxKeptBytes {
		read = max(read, o.written-maxKeptBytes)
	}
	keep := slices.IndexFunc(o.sent, func(m sentMessage) bool { return m.end > read })
	if keep < 0 {
		o.sent = nil
		return
	}
	o.sent = slices.Delete(o.sent, 0, keep)
}

// close ends the stream, also for a write that is under way. The process can still read what is in the pipe.
func (o *outflow) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.closed = true
	o.rest = otherEnd(o.f)
	_ = o.f.Close()
}

// leftover returns, once the process has ended and nobody writes any more, the messages that it did not read to their end,
// in order. Those in the middle of which processes ended again and again are not among them: they have failed, and dropped
// counts the ones that had been settled before.
func (o *outflow) leftover() (left []*handover, dropped int) {
	o.close()
	o.mu.Lock()
	defer o.mu.Unlock()
	read := o.readLocked()
	for _, m := range o.sent {
		counted := m.isSettled()
		switch {
		case m.end <= read:
		case m.begin >= read || m.interrupted():
			left = append(left, m.handover)
		case counted:
			dropped++
		}
	}
	o.sent = nil
	return left, dropped
}

// readLocked tells how much of the stream the process has read.
func (o *outflow) readLocked() uint64 {
	if o.rest == nil {
		return o.written
	}
	n, _ := unread(o.rest)
	_ = o.rest.Close()
	o.rest = nil
	return o.written - min(o.written, uint64(n))
}
