package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Bounds of the outbox. A class admits a message while it is below both of its bounds, in flight or not.
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

// Classes of the outbox, in the order in which they leave.
const (
	classHigh = iota
	classMedium
	classLow
	classes
)

func classOf(p fspb.Message_Priority) int {
	switch p {
	case fspb.Message_HIGH:
		return classHigh
	case fspb.Message_LOW:
		return classLow
	}
	return classMedium
}

// parcel is one message on its way to the server, serialized.
type parcel struct {
	seq        uint64 // order of admission
	class      int
	raw        []byte
	background bool
	accepted   func() // may be nil; must not block
	queued     time.Time
	failures   int       // contacts that ended over it, alone
	convicted  bool      // a contact without it succeeded since it failed alone
	retry      time.Time // set aside until then
}

// outbox holds the messages for the server until the server acknowledged them: three classes, strict priority between
// them, first in first out inside. A returned batch goes back to where it was, so that nothing is reordered within a
// class. All methods may be called from any goroutine; none but send blocks.
type outbox struct {
	reports reportSource
	now     func() time.Time
	// signal holds a token when there may be something to take.
	signal chan struct{}

	mu       sync.Mutex
	nextSeq  uint64
	class    [classes]class
	suspect  *parcel   // queued; failed alone
	aside    []*parcel // ended contacts repeatedly; sent alone, and seldom
	maxBatch int       // messages in a batch; falls when contacts fail over their content
	closed   bool
	idle     chan struct{} // closed once closed and empty
}

type class struct {
	queued []*parcel // in order of seq
	count  int       // queued, in flight and aside
	bytes  int
	room   chan struct{} // closed and replaced when the class shrinks; nil while nobody waits
}

// reportSource makes the agent's own reports (acks, errors, client info) at the moment a batch is put together, so that
// they gather while the previous batch is under way. It is called while the outbox is locked.
type reportSource interface {
	// collect takes what waits, for a contact of the given identity.
	collect(identity.ClientID) []*fspb.Message
	// waiting tells how many messages collect would make at most, and since when the first of them waits.
	waiting() (int, time.Time)
}

func newOutbox(reports reportSource) *outbox {
	return &outbox{
		reports:  reports,
		now:      time.Now,
		signal:   make(chan struct{}, 1),
		maxBatch: wire.MaxMessagesPerRecord,
		idle:     make(chan struct{}),
	}
}

// send admits a message, waiting for room until ctx ends. accepted, if not nil, is called once the server has the message.
func (o *outbox) send(ctx context.Context, m *fspb.Message, accepted func()) error {
	raw, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(raw) > MaxMessageSize {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrMessageTooLarge, len(raw), MaxMessageSize)
	}
	p := &parcel{class: classOf(m.Priority), raw: raw, background: m.Background, accepted: accepted}
	for {
		room, err := o.admit(p)
		if room == nil {
			return err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return fmt.Errorf("outbox is full: %w", ctx.Err())
		}
	}
}

// admit queues p, or returns the channel that is closed when it is worth another try.
func (o *outbox) admit(p *parcel) (<-chan struct{}, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, errOutboxClosed
	}
	c := &o.class[p.class]
	if !c.admits() {
		if c.room == nil {
			c.room = make(chan struct{})
		}
		return c.room, nil
	}
	o.pushLocked(p)
	o.wake()
	return nil, nil
}

func (c *class) admits() bool { return c.count < maxClassMessages && c.bytes < maxClassBytes }

func (o *outbox) pushLocked(p *parcel) {
	o.nextSeq++
	p.seq, p.queued = o.nextSeq, o.now()
	c := &o.class[p.class]
	c.queued = append(c.queued, p)
	c.count++
	c.bytes += len(p.raw)
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

// batch is what one record or poll carries. Its taker calls exactly one of accept and giveBack.
type batch struct {
	outbox  *outbox
	parcels []*parcel
	bytes   int
}

// open returns the batch with which a contact begins: that of take, or none to see whether a contact without succeeds.
func (o *outbox) open(id identity.ClientID, maxBytes int) *batch {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.probingLocked() {
		return nil
	}
	return o.takeLocked(id, maxBytes)
}

// take returns the next batch for a contact of the given identity, or nil when nothing waits. The batch ends at maxBytes;
// its last message may reach beyond.
func (o *outbox) take(id identity.ClientID, maxBytes int) *batch {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.takeLocked(id, maxBytes)
}

func (o *outbox) takeLocked(id identity.ClientID, maxBytes int) *batch {
	o.gatherLocked(id)
	b := &batch{outbox: o}
	for i := range o.class {
		c := &o.class[i]
		for len(c.queued) > 0 && len(b.parcels) < o.maxBatch && b.bytes < maxBytes {
			b.add(c.queued[0])
			c.queued[0] = nil
			c.queued = c.queued[1:]
		}
	}
	if len(b.parcels) == 0 {
		o.takeAsideLocked(b)
	}
	if len(b.parcels) == 0 {
		return nil
	}
	if o.waitingLocked() {
		o.wake()
	}
	return b
}

func (b *batch) add(p *parcel) {
	b.parcels = append(b.parcels, p)
	b.bytes += len(p.raw)
}

// gatherLocked asks for the agent's own reports, unless so many wait already that new ones had better stay where they are
// bounded.
func (o *outbox) gatherLocked(id identity.ClientID) {
	if !o.class[classHigh].admits() {
		return
	}
	for _, m := range o.reports.collect(id) {
		raw, err := proto.Marshal(m)
		if err != nil {
			continue // made by the agent itself, of valid strings
		}
		o.pushLocked(&parcel{class: classHigh, raw: raw, background: m.Background})
	}
}

func (o *outbox) waitingLocked() bool {
	return slices.ContainsFunc(o.class[:], func(c class) bool { return len(c.queued) > 0 })
}

// accept forgets the messages, which the server has, and tells their senders.
func (b *batch) accept() {
	for _, p := range b.parcels {
		if p.accepted != nil {
			p.accepted()
		}
	}
	o := b.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range b.parcels {
		if o.suspect == p {
			o.suspect = nil
		}
		c := &o.class[p.class]
		c.count--
		c.bytes -= len(p.raw)
		c.announceRoom()
	}
	o.maxBatch = min(2*o.maxBatch, wire.MaxMessagesPerRecord)
	o.settleLocked()
}

func (c *class) announceRoom() {
	if c.room != nil && c.admits() {
		close(c.room)
		c.room = nil
	}
}

// giveBack queues the messages again, each at its old place.
func (b *batch) giveBack() {
	o := b.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range b.parcels {
		o.class[p.class].restore(p)
	}
	o.wake()
}

// restore puts a parcel where its sequence number belongs.
func (c *class) restore(p *parcel) {
	at, _ := slices.BinarySearchFunc(c.queued, p.seq, func(q *parcel, seq uint64) int {
		return cmp.Compare(q.seq, seq)
	})
	c.queued = slices.Insert(c.queued, at, p)
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
		held += o.class[i].count
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
}

func (o *outbox) stats() outboxStats {
	o.mu.Lock()
	defer o.mu.Unlock()
	var s outboxStats
	s.Waiting, s.Oldest = o.reports.waiting()
	s.Messages, s.Closed, s.Aside = s.Waiting, o.closed, len(o.aside)
	for i := range o.class {
		c := &o.class[i]
		s.Messages += c.count
		s.Bytes += c.bytes
		s.Waiting += len(c.queued)
		for _, p := range c.queued {
			s.WaitingBytes += len(p.raw)
		}
		if len(c.queued) > 0 && (s.Oldest.IsZero() || c.queued[0].queued.Before(s.Oldest)) {
			s.Oldest = c.queued[0].queued
		}
	}
	return s
}
