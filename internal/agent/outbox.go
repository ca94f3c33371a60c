package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Bounds of the outbox. A class admits a message while it is below both of its bounds, in flight or not. They are for what is
// in memory only; messages that are on disk too have those of the keeper.
const (
	maxClassMessages = 100
	maxClassBytes    = 20 << 20

	// MaxMessageSize is the largest message that a service may send: the 2 MiB of the local protocols, and what the agent
	// adds to it. A larger one would make the record around it unacceptable to servers (G-16).
	MaxMessageSize = 2<<20 + 64<<10

	// maxBatchBytes ends a batch; its last message may reach beyond.
	maxBatchBytes = 7864320 // 7.5 MiB
)

var (
	// ErrMessageTooLarge says that a message can never be sent.
	ErrMessageTooLarge = errors.New("message is larger than the protocol carries")
	errOutboxClosed    = errors.New("the agent is stopping")
)

// outbox holds the messages for the server until the server acknowledged them: three classes, strict priority between
// them, first in first out inside. A returned batch goes back to where it was, so that nothing is reordered within a
// class. With a keeper, a message is on disk before it counts as taken; see keep.go. All methods may be called from any
// goroutine; none but send and report block for longer than the disk takes.
type outbox struct {
	reports reportSource
	keeper  *keeper // nil: memory only
	now     func() time.Time
	// signal holds a token when there may be something to take.
	signal chan struct{}

	mu       sync.Mutex
	nextSeq  uint64
	class    [classes]class
	kept     load            // of all classes
	dropped  [classes]uint64 // messages, ever
	suspect  *parcel         // queued; failed alone
	aside    []*parcel       // ended contacts repeatedly; sent alone, and seldom
	maxBatch int             // messages in a batch; falls when contacts fail over their content
	closed   bool
	idle     chan struct{} // closed once closed and empty
}

// reportSource makes the agent's own reports (acks, errors, client info) at the moment a batch is put together, so that
// they gather while the previous batch is under way. It is called while the outbox is locked.
type reportSource interface {
	// collect takes what waits, for a contact of the given identity.
	collect(identity.ClientID) []*fspb.Message
	// waiting tells how many messages collect would make at most, and since when the first of them waits.
	waiting() (int, time.Time)
}

// newOutbox makes an outbox with what the keeper has from before. keeper may be nil.
func newOutbox(reports reportSource, k *keeper) *outbox {
	o := &outbox{
		reports:  reports,
		keeper:   k,
		now:      time.Now,
		signal:   make(chan struct{}, 1),
		maxBatch: wire.MaxMessagesPerRecord,
		idle:     make(chan struct{}),
	}
	o.replay()
	return o
}

// send takes a message, waiting for room until ctx ends, and for the disk. accepted, if not nil, is called once the server
// has the message.
func (o *outbox) send(ctx context.Context, m *fspb.Message, accepted func()) error {
	return o.put(ctx, m, &parcel{accepted: accepted})
}

// report is send for a message that another one like it follows: it is not worth a place on disk, and counts as dropped
// when there is no room until ctx ends.
func (o *outbox) report(ctx context.Context, m *fspb.Message) error {
	err := o.put(ctx, m, &parcel{volatile: true})
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.dropped[classOf(m.Priority)]++
	}
	return err
}

func (o *outbox) put(ctx context.Context, m *fspb.Message, p *parcel) error {
	raw, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(raw) > MaxMessageSize {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrMessageTooLarge, len(raw), MaxMessageSize)
	}
	p.class, p.raw, p.size, p.background = classOf(m.Priority), raw, len(raw), m.Background
	for {
		room, err := o.admit(p)
		if err != nil {
			return err
		}
		if room == nil {
			if !p.kept || o.keep(p) {
				return nil
			}
			continue // the disk does not take it; there may be room in memory
		}
		select {
		case <-room:
		case <-ctx.Done():
			return fmt.Errorf("outbox is full: %w", ctx.Err())
		}
	}
}

// admit queues p, or takes up its room if it goes to disk first, or returns the channel that is closed when it is worth
// another try.
func (o *outbox) admit(p *parcel) (<-chan struct{}, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, errOutboxClosed
	}
	p.kept = !p.volatile && o.keeper.usable(o.now())
	if !o.admitsLocked(p.class, p.kept) {
		c := &o.class[p.class]
		if c.room == nil {
			c.room = make(chan struct{})
		}
		return c.room, nil
	}
	o.holdLocked(p)
	if !p.kept {
		o.class[p.class].restore(p)
		o.wake()
	}
	return nil, nil
}

func (o *outbox) admitsLocked(class int, kept bool) bool {
	if kept {
		return o.keeper.admits(class, o.kept)
	}
	return o.class[class].admitsLoose()
}

// holdLocked gives a message its number and its room.
func (o *outbox) holdLocked(p *parcel) {
	if p.seq == 0 {
		o.nextSeq++
		p.seq = o.nextSeq
	}
	p.queued = o.now()
	c := &o.class[p.class]
	c.held.add(p.size)
	if !p.kept {
		c.loose.add(p.size)
		return
	}
	o.kept.add(p.size)
	if p.raw != nil {
		c.resident += p.size
	}
}

// releaseLocked is the reverse.
func (o *outbox) releaseLocked(p *parcel) {
	c := &o.class[p.class]
	c.held.remove(p.size)
	if !p.kept {
		c.loose.remove(p.size)
		return
	}
	o.kept.remove(p.size)
	if p.raw != nil {
		c.resident -= p.size
	}
}

// wake leaves a token in the signal channel.
func (o *outbox) wake() {
	select {
	case o.signal <- struct{}{}:
	default:
	}
}

// ready receives when there may be something to take.
func (o *outbox) ready() <-chan struct{} { return o.signal }

// announceRoomLocked has those who wait try again where that may succeed.
func (o *outbox) announceRoomLocked() {
	kept := o.keeper.usable(o.now())
	for i := range o.class {
		c := &o.class[i]
		if c.room != nil && (c.admitsLoose() || kept && o.keeper.admits(i, o.kept)) {
			close(c.room)
			c.room = nil
		}
	}
}

// close refuses new messages. What is held still leaves; idle is closed when it has.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for i := range o.class {
		if c := &o.class[i]; c.room != nil {
			close(c.room)
			c.room = nil
		}
	}
	o.settleLocked()
	o.wake()
}

// settleLocked closes idle when the last message of a closed outbox has gone.
func (o *outbox) settleLocked() {
	if !o.closed || o.heldLocked() > 0 {
		return
	}
	select {
	case <-o.idle:
	default:
		close(o.idle)
	}
}

func (o *outbox) heldLocked() int {
	held, _ := o.reports.waiting()
	for i := range o.class {
		held += o.class[i].held.messages
	}
	return held
}

// outboxStats is what the schedule of polls and the status report need.
type outboxStats struct {
	Messages     int // all that is held
	Bytes        int
	Waiting      int // not in flight
	WaitingBytes int
	Oldest       time.Time // of those waiting; zero if none
	Aside        int       // of those held, see poison.go
	Closed       bool
	Kept         load            // of those held, on disk
	Class        [classes]load   // those held, but for the agent's own
	Dropped      [classes]uint64 // ever
}

func (o *outbox) stats() outboxStats {
	o.mu.Lock()
	defer o.mu.Unlock()
	var s outboxStats
	s.Waiting, s.Oldest = o.reports.waiting()
	s.Messages, s.Closed, s.Aside = s.Waiting, o.closed, len(o.aside)
	s.Kept, s.Dropped = o.kept, o.dropped
	for i := range o.class {
		c := &o.class[i]
		s.Messages += c.held.messages
		s.Bytes += c.held.bytes
		s.Class[i] = c.held
		s.Waiting += len(c.queued)
		for _, p := range c.queued {
			s.WaitingBytes += p.size
		}
		if len(c.queued) > 0 && (s.Oldest.IsZero() || c.queued[0].queued.Before(s.Oldest)) {
			s.Oldest = c.queued[0].queued
		}
	}
	return s
}
