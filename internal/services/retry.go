package services

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Delays of retries.
const (
	minRetry = time.Second
	maxRetry = 10 * time.Minute
)

// try hands one claimed message to its service and records the outcome. A message that finds no slot, or whose claim would
// not last, is not handed over.
func (b *backlog) try(ctx, work context.Context, c claim, u *unit, bm store.BacklogMessage) {
	from := b.sender(c, bm.Message)
	b.m.metrics.ingested(u, bm.Message, from, true)
	wait := slotWait{budget: b.m.cfg.BacklogBudget / 2}
	defer wait.end()
	if !wait.slot(ctx, u) {
		b.settle(work, c, u, bm, from, noSlot(ctx))
		return
	}
	if time.Until(c.expires) < b.m.cfg.BacklogBudget {
		u.slots.Release(1) // it is somebody else's any moment
		return
	}
	budgeted, cancel := context.WithTimeoutCause(work, b.m.cfg.BacklogBudget, errBudget)
	defer cancel()
	o := u.hand(budgeted, from, bm.Message, bm.Attempts == 0)
	if o.verdict != refused {
		u.hurried.Store(false)
	}
	u.slots.Release(1)
	b.settle(work, c, u, bm, from, o)
}

func (b *backlog) sender(c claim, m *fspb.Message) sender {
	from := sender{id: senderID(m)}
	if client := c.senders[from.id]; client != nil {
		from.blacklisted = client.Blacklisted
		from.labels, from.bare = b.m.metrics.allowed.join(client.Labels)
	}
	return from
}

// settle records what became of a message.
func (b *backlog) settle(ctx context.Context, c claim, u *unit, bm store.BacklogMessage, from sender, o outcome) {
	out := store.BacklogOutcome{Service: bm.Service, ID: bm.ID}
	switch o.verdict {
	case taken:
		out.Done, out.Keep = true, b.keeps(u, from)
	case failed:
		out.Dead, out.Reason = true, reason(o.err)
	case later:
		attempts := bm.Attempts + 1
		if u.maxAttempts > 0 && attempts >= u.maxAttempts {
			out.Dead, out.Reason = true, reason(fmt.Errorf("gave up after %d attempts: %w", attempts, o.err))
			break
		}
		out.RetryIn, out.Reason = retryDelay(attempts), reason(o.err)
	case refused:
		b.m.metrics.dropped(u.name, bm.Message, from, bm.Attempts == 0)
		out.RetryIn = retryDelay(1)
	case aborted: // this server stops; the claim is given back with all others
		return
	}
	if b.finish(ctx, c, out) {
		b.m.metrics.finished(u, out)
	}
}

// keeps says whether the success of a message leaves a result. That of a message which no client sent always does: its
// sender may ask for it, and by the result a repeated insertion is known as such.
func (b *backlog) keeps(u *unit, from sender) bool {
	return from.id.IsNil() || b.m.cfg.KeepResults && u.reports == nil
}

// retryDelay doubles with each attempt, from minRetry to maxRetry. Half of it is random.
func retryDelay(attempts int) time.Duration {
	d := maxRetry
	if shift := min(attempts, 30); minRetry<<shift < maxRetry {
		d = minRetry << shift
	}
	return d/2 + rand.N(d/2)
}

// finish writes an outcome, again if need be, for as long as the claim lasts. After that the message is tried again.
func (b *backlog) finish(ctx context.Context, c claim, out store.BacklogOutcome) bool {
	ctx, cancel := context.WithDeadline(ctx, c.expires)
	defer cancel()
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = storePauseMin, leaseReserve/4
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		result, err := b.m.writes.done.Do(ctx, out)
		if err == nil {
			err = result
		}
		return struct{}{}, err
	}, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(0))
	if err != nil {
		b.complain(fmt.Errorf("record the outcome of a message: %w", err))
	}
	return err == nil
}
