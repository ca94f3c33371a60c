package fleet

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
)

const (
	// maxWaiting is how many messages of a client may wait for their turn; what comes above is counted and not sent.
	maxWaiting = 100_000
	// maxAcks is how many acknowledgements go into one record.
	maxAcks = 5000
)

// outbox is what a client has to send, and what is under way. It belongs to the client, under its lock.
type outbox struct {
	acks     []identity.MessageID
	held     bool    // acknowledgements gather until a timer fires
	returned uint64  // tokens of the load service to give back
	times    []int64 // when each message of its own was due, ns since 1970; those in flight first
	flying   int     // how many of them are in flight
	flights  []flight
}

// flight is one record that waits for its acknowledgement.
type flight struct {
	messages int
	acks     []identity.MessageID
}

var outboxes = sync.Pool{New: func() any { return new(outbox) }}

// idle says that nothing waits and nothing is under way.
func (o *outbox) idle() bool {
	return len(o.acks) == 0 && len(o.times) == 0 && len(o.flights) == 0 && o.returned == 0
}

// land removes the oldest flight.
func (o *outbox) land() flight {
	done := o.flights[0]
	o.flights = slices.Delete(o.flights, 0, 1)
	o.flying -= done.messages
	return done
}

// requeue takes back what a broken session carried. It goes again, in its order.
func (o *outbox) requeue() {
	var acks []identity.MessageID
	for _, f := range o.flights {
		acks = append(acks, f.acks...)
	}
	o.acks = append(acks, o.acks...)
	o.flights, o.flying = nil, 0
}

// flush sends records as long as there is something to send and the window has room.
func (c *client) flush(l *link) error {
	sending := c.fleet.sending.Load()
	switch {
	case sending == nil && c.out != nil:
		c.out.times = c.out.times[:c.out.flying] // nobody wants the rest any more
	case sending != nil && sending.Closed:
		c.outbox()
	}
	for c.out != nil && !l.leaving && len(c.out.flights) < c.fleet.job.Window {
		c.out.fill(sending)
		next := c.out.next(sending)
		if next.messages == 0 && len(next.acks) == 0 && (c.out.returned < beacon || c.out.held) {
			break
		}
		if err := c.send(l, next, sending); err != nil {
			return err
		}
	}
	if c.out != nil && c.out.idle() && !c.out.held {
		c.out.times, c.out.acks, c.out.flights = nil, nil, nil
		outboxes.Put(c.out)
		c.out = nil
	}
	return nil
}

// beacon is how many tokens an agent gathers before it returns them without anything else to say.
const beacon = 32

// fill gives a client that sends as fast as it may its next messages.
func (o *outbox) fill(sending *Sending) {
	if sending == nil || !sending.Closed {
		return
	}
	now := time.Now().UnixNano()
	for len(o.times)-o.flying < sending.Batch {
		o.times = append(o.times, now)
	}
}

// next is what goes into the next record.
func (o *outbox) next(sending *Sending) flight {
	var f flight
	if sending != nil {
		f.messages = min(len(o.times)-o.flying, sending.Batch)
	}
	if !o.held {
		n := min(len(o.acks), maxAcks)
		f.acks, o.acks = o.acks[:n:n], o.acks[n:]
	}
	return f
}

// send writes one record.
func (c *client) send(l *link, f flight, sending *Sending) error {
	out, job := c.out, &c.fleet.job
	says := contact{nonce: c.nonce, labels: job.Labels}
	if out.returned > 0 {
		says.tokens = []tokenGrant{{job.Service, out.returned}}
	}
	id := c.fleet.keys.at(c.index).id
	chunk := getChunk()
	defer chunk.free()
	chunk.record(says, func(dst []byte) []byte {
		for i := range f.messages {
			number := out.flying + i
			stamp := Stamp{Kind: Up, Index: c.index, Run: job.Run, Sequence: c.sent + uint64(number), Sent: out.times[number]}
			dst = appendPayloadMessage(dst, id, job.Service, sending.Service, stamp, sending.Size)
		}
		if len(f.acks) > 0 {
			dst = appendAcks(dst, id, f.acks[0][:16], f.acks)
		}
		return dst
	})
	out.returned = 0
	out.flying += f.messages
	out.flights = append(out.flights, f)
	meters := c.fleet.meters
	meters.add(Records, 1)
	meters.add(Sent, f.messages)
	meters.add(AcksSent, len(f.acks))
	meters.add(BytesSent, len(chunk.bytes))
	return l.write(chunk.bytes)
}

// queue adds messages of the client's own, due now, and sends them if it can.
func (c *client) queue(now time.Time, count int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.outbox()
	room := min(count, maxWaiting-len(out.times))
	c.fleet.meters.add(Throttled, count-room)
	for range room {
		out.times = append(out.times, now.UnixNano())
	}
	c.flushOrClose()
}

// replyLater makes the client send what it sends for a message that came. It is called with the lock held.
func (c *client) replyLater() {
	sending := c.fleet.sending.Load()
	if sending == nil || sending.Replies == 0 {
		return
	}
	delay := rand.N(sending.ReplyDelay + 1)
	time.AfterFunc(delay, func() { c.queue(time.Now(), sending.Replies) })
}
