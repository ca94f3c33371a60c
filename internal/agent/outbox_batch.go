package agent

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/wire"
)

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
			p := c.queued[0]
			c.queued[0] = nil
			c.queued = c.queued[1:]
			if o.loadLocked(p) {
				b.add(p)
			}
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
	b.bytes += p.size
}

// gatherLocked asks for the agent's own reports, unless so many wait already that new ones had better stay where they are
// bounded.
func (o *outbox) gatherLocked(id identity.ClientID) {
	if !o.class[classHigh].admitsLoose() {
		return
	}
	for _, m := range o.reports.collect(id) {
		raw, err := proto.Marshal(m)
		if err != nil {
			continue // made by the agent itself, of valid strings
		}
		p := &parcel{class: classHigh, raw: raw, size: len(raw), background: m.Background}
		o.holdLocked(p)
		o.class[classHigh].restore(p)
	}
}

func (o *outbox) waitingLocked() bool {
	return slices.ContainsFunc(o.class[:], func(c class) bool { return len(c.queued) > 0 })
}

// accept forgets the messages, which the server has, and tells their senders.
func (b *batch) accept() {
	b.outbox.keeper.remove(b.parcels)
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
		o.releaseLocked(p)
	}
	o.announceRoomLocked()
	o.maxBatch = min(2*o.maxBatch, wire.MaxMessagesPerRecord)
	o.settleLocked()
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
