package agent

import (
	"slices"
	"time"

	"github.com/farspeak/farspeak/internal/wire"
)

// A message that no server will take must not hold up its neighbours for ever (G-16). A contact that ended over a batch
// halves the next batches, down to single messages. One that ends contacts alone, while contacts without it succeed, is set
// aside: it leaves the order of its class, is tried alone from time to time, and is never dropped. A server that fails with
// everything, because its database is down, say, thus convicts nobody.
const (
	aloneFailures = 3
	asideDelay    = 10 * time.Minute
	maxAsideDelay = 24 * time.Hour
)

// blame gives the messages back like giveBack, after a contact that the batch itself may have ended.
func (b *batch) blame() {
	o := b.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.wake()
	if len(b.parcels) == 1 {
		o.suspectLocked(b.parcels[0])
		return
	}
	for _, p := range b.parcels {
		o.class[p.class].restore(p)
	}
	o.maxBatch = max(1, min(o.maxBatch, len(b.parcels))/2)
}

// suspectLocked puts back a message that failed alone, or sets it aside.
func (o *outbox) suspectLocked(p *parcel) {
	p.failures++
	if p.failures < aloneFailures || !p.convicted {
		o.class[p.class].restore(p)
		o.suspect = p
		return
	}
	p.retry = o.now().Add(min(asideDelay<<min(p.failures-aloneFailures, 10), maxAsideDelay))
	o.aside = append(o.aside, p)
	o.suspect = nil
	o.maxBatch = wire.MaxMessagesPerRecord
}

// probingLocked reports whether the next contact has to open without messages, to see whether that succeeds.
func (o *outbox) probingLocked() bool {
	return o.suspect != nil && o.suspect.failures >= aloneFailures-1 && !o.suspect.convicted
}

// opened notes that a contact succeeded.
func (o *outbox) opened() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.suspect != nil {
		o.suspect.convicted = true
	}
}

// takeAsideLocked adds one message to an empty batch, if one of those set aside has its turn.
func (o *outbox) takeAsideLocked(b *batch) {
	now := o.now()
	i := slices.IndexFunc(o.aside, func(p *parcel) bool { return !p.retry.After(now) })
	if i < 0 {
		return
	}
	b.add(o.aside[i])
	o.aside = slices.Delete(o.aside, i, i+1)
}
