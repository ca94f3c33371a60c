package service

import (
	"context"
	"fmt"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/channel"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// maxInterruptions is how often a process may end in the middle of reading a message before the message counts as failed:
// it may be what ends the process, and would do so for ever.
const maxInterruptions = 3

// handover is a message on its way to a process. It is settled when the process has all of it in its pipe or socket, or
// when it failed. Who takes it from the counter owns it until then, and may pass it on.
type handover struct {
	message *fspb.Message
	settled chan struct{}
	err     error // valid when settled is closed

	withdrawn     atomic.Bool // nobody waits for it any more
	interruptions int
}

func (h *handover) settle(err error) {
	h.err = err
	close(h.settled)
}

func (h *handover) isSettled() bool {
	select {
	case <-h.settled:
		return true
	default:
		return false
	}
}

// interrupted notes that a process ended while it read the message, and reports whether there is another try.
func (h *handover) interrupted() bool {
	h.interruptions++
	if h.interruptions < maxInterruptions {
		return true
	}
	if !h.isSettled() {
		h.settle(fmt.Errorf("the process ended %d times while it read the message", h.interruptions))
	}
	return false
}

// counter is where messages wait, one at a time, for somebody to write them to a process.
type counter chan *handover

// deliver hands a message over. It returns nil when a process has it in its pipe or socket (G-13), and waits for that until
// ctx ends.
func (c counter) deliver(ctx context.Context, m *fspb.Message) error {
	if size := proto.Size(m); size > channel.MaxMessage {
		return fmt.Errorf("%w: %d bytes, at most %d fit the local protocol", channel.ErrTooLarge, size, channel.MaxMessage)
	}
	h := &handover{message: m, settled: make(chan struct{})}
	select {
	case c <- h:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-h.settled:
		return h.err
	case <-ctx.Done():
	}
	h.withdrawn.Store(true)
	if h.isSettled() {
		return h.err
	}
	return ctx.Err()
}

// wanted reports whether the message is still to be written: somebody waits for it, or nobody does because it counts as
// delivered.
func (h *handover) wanted() bool { return !h.withdrawn.Load() || h.isSettled() }
