package agent

import (
	"slices"
	"time"

	"github.com/farspeak/farspeak/internal/wire"
)

// A message that no server will take must not hold up its neighbours for ever (G-16). A contact that was going well and
// then ended over the content of a batch halves the next batches, down to single messages. One that ends contacts alone,
// again and again, is set aside: it leaves the order of its class, is tried alone from time to time, and is never dropped.
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
	if len(b.parcels) > 1 {
		for _, p := range b.parcels {
			o.class[p.class].restore(p)
		}
		o.maxBatch = max(1, min(o.maxBatch, len(b.parcels))/2)
		return
	}
	for _, p := range b.parcels {
		p.failures++
		if p.failures < aloneFailures {
			o.class[p.class].restore(p)
			continue
		}
		p.retry = o.now().Add(min(asideDelay<<min(p.failures-aloneFailures, 10), maxAsideDelay))
		o.aside = append(o.aside, p)
		o.maxBatch = wire.MaxMessagesPerRecord
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
