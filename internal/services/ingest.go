package services

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// sender is what services and metrics may know of the client that a message is from.
type sender struct {
	id          identity.ClientID
	blacklisted bool
	labels      string // its labels as "service:label", joined, for metrics
	bare        string // the same without services
}

// Ingest brings each message of a batch to its service or into the store. It returns nil when all have arrived: the record
// may be acknowledged. On an error nothing may be acknowledged, though some of the messages may have arrived.
//
// Messages to one service are handed over in order of arrival, and concurrently as far as the service has slots.
func (m *Manager) Ingest(ctx context.Context, b Batch) error {
	from := sender{id: b.ClientID, blacklisted: b.Blacklisted}
	from.labels, from.bare = m.metrics.allowed.join(b.ClientLabels)
	var in *intake // made by the first message that needs more than an inline service
	for _, msg := range b.Messages {
		if len(msg.GetMessageId()) != identity.MessageIDSize {
			return fmt.Errorf("ingest: message ID of %d bytes", len(msg.GetMessageId()))
		}
		msg.ValidationInfo = b.ValidationInfo
		u := m.units[msg.GetDestination().GetServiceName()]
		m.metrics.ingested(u, msg, from, false)
		if u != nil && u.inline && !m.cfg.KeepResults {
			u.hand(ctx, from, msg, true)
			continue
		}
		if in == nil {
			in = &intake{m: m, from: from}
		}
		in.add(u, msg)
	}
	if in == nil {
		return nil
	}
	return in.run(ctx)
}

// intake is one Ingest under way.
type intake struct {
	m      *Manager
	from   sender
	groups []group

	mu   sync.Mutex
	left bool   // guarded by mu: a Process call ended because the caller of Ingest left
	kept []kept // guarded by mu: what goes to the store in the end
}

// group is the messages of one batch to one service, in order.
type group struct {
	unit     *unit
	messages []*fspb.Message
}

// add sorts a message in.
func (in *intake) add(u *unit, msg *fspb.Message) {
	if u == nil {
		in.m.metrics.unknownService(msg, in.from)
		name := msg.GetDestination().GetServiceName()
		known := cut(name, store.MaxName)
		// Whoever has a key of its own making can send to names of its own making: that must not fill the disk.
		in.keep(kept{message: envelope(msg, known), service: known, dead: true, reason: reason(unknownService(name))})
		return
	}
	for i := range in.groups {
		if in.groups[i].unit == u {
			in.groups[i].messages = append(in.groups[i].messages, msg)
			return
		}
	}
	in.groups = append(in.groups, group{u, []*fspb.Message{msg}})
}

// run hands over, waits, and stores what has to be stored in as few commits as possible. The last group runs in the
// caller's goroutine, so that a record with one message starts none.
func (in *intake) run(ctx context.Context) error {
	if n := len(in.groups); n > 0 {
		budgeted, cancel := context.WithTimeoutCause(ctx, in.m.cfg.ServiceBudget, errBudget)
		defer cancel()
		var calls sync.WaitGroup
		for _, g := range in.groups[:n-1] {
			calls.Go(func() { in.dispatch(budgeted, g, &calls) })
		}
		in.dispatch(budgeted, in.groups[n-1], &calls)
		calls.Wait()
	}
	if in.left {
		return fmt.Errorf("ingest: %w", ctx.Err())
	}
	if len(in.kept) == 0 {
		return nil
	}
	return in.m.writes.keep(ctx, in.m.metrics, in.from, in.kept)
}

// dispatch hands the messages of a group to its service, each as soon as there is a slot for it. What finds none within half
// of the budget goes to the backlog: the other half is for the service. It waits in line without a goroutine per message.
func (in *intake) dispatch(ctx context.Context, g group, calls *sync.WaitGroup) {
	wait := slotWait{budget: in.m.cfg.ServiceBudget / 2}
	defer wait.end()
	for i, msg := range g.messages {
		switch {
		case g.unit.shut():
			in.settle(g.unit, msg, outcome{refused, errCircuitOpen})
		case !wait.slot(ctx, g.unit):
			in.settle(g.unit, msg, noSlot(ctx))
		case i == len(g.messages)-1:
			in.call(ctx, g.unit, msg)
		default:
			calls.Go(func() { in.call(ctx, g.unit, msg) })
		}
	}
}

// noSlot is the outcome of a message that got no slot.
func noSlot(ctx context.Context) outcome {
	if ctx.Err() != nil && context.Cause(ctx) != errBudget {
		return outcome{aborted, errCallerLeft}
	}
	return outcome{refused, errNoSlot}
}

// call makes one Process call in a slot that the caller took.
func (in *intake) call(ctx context.Context, u *unit, msg *fspb.Message) {
	o := u.hand(ctx, in.from, msg, true)
	if isTimeout(o.err) {
		u.hurried.Store(true)
	}
	u.slots.Release(1)
	in.settle(u, msg, o)
}

// settle notes what has to be stored after a Process call.
func (in *intake) settle(u *unit, msg *fspb.Message, o outcome) {
	k := kept{message: msg, service: u.name, unit: u}
	switch o.verdict {
	case taken:
		if !in.m.cfg.KeepResults || u.reports != nil {
			return
		}
	case failed:
		k.dead, k.reason = true, reason(o.err)
	case later:
		k.retry, k.attempts = true, 1
	case refused:
		in.m.metrics.dropped(u.name, msg, in.from, true)
		k.retry = true
	case aborted:
		in.mu.Lock()
		in.left = true
		in.mu.Unlock()
		return
	}
	in.keep(k)
}

func (in *intake) keep(k kept) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.kept = append(in.kept, k)
}

// slotWait waits for slots of one unit, for a bounded time over all of them.
type slotWait struct {
	budget time.Duration
	ctx    context.Context // ends with the wait; nil until a slot has to be waited for
	cancel context.CancelFunc
}

// slot takes a slot and reports whether it got one.
func (w *slotWait) slot(ctx context.Context, u *unit) bool {
	if ctx.Err() != nil {
		return false
	}
	if u.slots.TryAcquire(1) {
		return true
	}
	if w.ctx == nil {
		w.ctx, w.cancel = context.WithTimeout(ctx, w.budget)
	}
	return u.slots.Acquire(w.ctx, 1) == nil
}

func (w *slotWait) end() {
	if w.cancel != nil {
		w.cancel()
	}
}
