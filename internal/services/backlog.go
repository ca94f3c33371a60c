package services

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/golang/glog"
	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// claimLimit is how many messages are claimed at once, and how many of one service this server may hold before it
	// claims more; so it holds less than twice as many.
	claimLimit = 32
	// leaseReserve is what a claim lasts beyond the waiting and the processing: time to record the outcome.
	leaseReserve = 45 * time.Second
	// storePauseMin and storePauseMax bound the pause after an error of the store (G-36).
	storePauseMin = 500 * time.Millisecond
	storePauseMax = 10 * time.Second
	// releaseTimeout bounds giving the claims back at the end.
	releaseTimeout = 5 * time.Second
	// statusEvery is the time between two measurements of the backlog.
	statusEvery = 15 * time.Second
	// storeLogInterval spaces log lines about a store that fails.
	storeLogInterval = time.Minute
)

// backlog tries messages of the store again. Every server works on the backlog of the services that it knows; claims keep
// them apart.
type backlog struct {
	m        *Manager
	lease    time.Duration
	freed    chan struct{} // a service that had its fill has room again
	calls    sync.WaitGroup
	storeLog rate.Sometimes

	// owned by the goroutine of run
	pause *backoff.ExponentialBackOff
	dueAt time.Time // when a message added here falls due; zero when none is known of
}

// claim is what is common to the messages claimed at once.
type claim struct {
	expires time.Time // by this machine's clock, not later than by the store's
	senders map[identity.ClientID]*store.Client
}

func newBacklog(m *Manager) *backlog {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = storePauseMin, storePauseMax
	return &backlog{
		m: m,
		// Half a budget of waiting for a slot, one of processing, half of one in case they are late.
		lease:    2*m.cfg.BacklogBudget + leaseReserve,
		freed:    make(chan struct{}, 1),
		storeLog: rate.Sometimes{Interval: storeLogInterval},
		pause:    pause,
	}
}

// run claims and hands over until ctx ends. Calls that are under way by then have the time that clients give a service to
// end by themselves; a stopping server does not wait for slower ones, which are tried again.
func (b *backlog) run(ctx context.Context) error {
	work, cancel := outlive(ctx, b.m.cfg.ServiceBudget+releaseTimeout)
	defer cancel()
	var status sync.WaitGroup
	status.Go(func() { b.measure(ctx) })
	for ctx.Err() == nil {
		more, err := b.claimDue(ctx, work)
		if err != nil && ctx.Err() == nil {
			b.complain(err)
			_ = sleep(ctx, b.pause.NextBackOff())
			continue
		}
		b.pause.Reset()
		if !more {
			b.wait(ctx)
		}
	}
	b.calls.Wait()
	status.Wait()
	return b.release(ctx)
}

// outlive returns a context that ends a while after ctx does.
func outlive(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(by, cancel) })
	return longer, func() { stop(); cancel() }
}

// release gives back what is still claimed when run ends.
func (b *backlog) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if err := b.m.cfg.Store.ReleaseBacklog(ctx, b.m.cfg.ServerID); err != nil {
		return fmt.Errorf("give claims back: %w", err)
	}
	return nil
}

func (b *backlog) complain(err error) {
	b.m.metrics.backlogErrors.Inc()
	b.storeLog.Do(func() { glog.Errorf("backlog: %v", err) })
}

// wait returns when there may be something to claim: after the poll interval, when a message added here falls due, or when
// a service has room again.
func (b *backlog) wait(ctx context.Context) {
	poll := time.Now().Add(jitter(b.m.cfg.BacklogPoll))
	timer := time.NewTimer(time.Until(b.wakeAt(poll)))
	defer timer.Stop()
	for {
		select {
		case dueIn := <-b.m.writes.added:
			if due := time.Now().Add(dueIn); b.dueAt.IsZero() || due.Before(b.dueAt) {
				b.dueAt = due
				timer.Reset(time.Until(b.wakeAt(poll)))
			}
			continue
		case <-timer.C:
			if !b.dueAt.After(time.Now()) {
				b.dueAt = time.Time{}
			}
		case <-b.freed:
		case <-ctx.Done():
		}
		return
	}
}

// wakeAt returns the end of a wait that would otherwise last until poll.
func (b *backlog) wakeAt(poll time.Time) time.Time {
	if b.dueAt.IsZero() || poll.Before(b.dueAt) {
		return poll
	}
	return b.dueAt
}

// jitter returns a duration of about d, so that servers do not poll in step.
func jitter(d time.Duration) time.Duration { return d - d/8 + rand.N(d/4+1) }

// claimDue claims messages once for all services that are well, and one for each that may be well again. It reports
// whether there may be more to claim at once.
func (b *backlog) claimDue(ctx, work context.Context) (more bool, err error) {
	well, probes := b.ready()
	if len(well) > 0 {
		n, err := b.claim(ctx, work, well, claimLimit)
		if err != nil {
			return false, err
		}
		more = n > 0
	}
	for _, name := range probes {
		if _, err := b.claim(ctx, work, []string{name}, 1); err != nil {
			return false, err
		}
	}
	return more, nil
}

// ready sorts the services: those that get messages, and those whose circuit wants one to probe with. While a circuit is
// open its backlog is left alone.
func (b *backlog) ready() (well, probes []string) {
	for name, u := range b.m.units {
		switch held := u.claimed.Load(); u.state() {
		case gobreaker.StateClosed:
			if held < claimLimit {
				well = append(well, name)
			}
		case gobreaker.StateHalfOpen:
			if held == 0 {
				probes = append(probes, name)
			}
		}
	}
	return well, probes
}

// claim takes due messages and starts a goroutine for each; their number is bounded by claimLimit a service. The goroutines
// stop waiting when ctx ends, and stop working when work does.
func (b *backlog) claim(ctx, work context.Context, services []string, limit int) (int, error) {
	expires := time.Now().Add(b.lease)
	messages, err := b.m.cfg.Store.ClaimBacklog(ctx, b.m.cfg.ServerID, services, limit, b.lease)
	if err != nil || len(messages) == 0 {
		return 0, err
	}
	c := claim{expires: expires}
	if c.senders, err = b.m.cfg.Store.GetClients(ctx, senders(messages)); err != nil {
		return 0, errors.Join(err, b.giveBack(ctx, messages))
	}
	for _, bm := range messages {
		u := b.m.units[bm.Service]
		if u == nil {
			continue // not asked for
		}
		u.claimed.Add(1)
		b.calls.Go(func() {
			b.try(ctx, work, c, u, bm)
			if u.claimed.Add(-1) == claimLimit-1 {
				b.poke()
			}
		})
	}
	return len(messages), nil
}

// poke ends a wait. Several pokes are one.
func (b *backlog) poke() {
	select {
	case b.freed <- struct{}{}:
	default:
	}
}

func senders(messages []store.BacklogMessage) []identity.ClientID {
	var ids []identity.ClientID
	for _, bm := range messages {
		if id := senderID(bm.Message); !id.IsNil() {
			ids = append(ids, id)
		}
	}
	return ids
}

// senderID returns the ID of the client that a message is from; nil for a message that is from none.
func senderID(m *fspb.Message) identity.ClientID {
	id, _ := identity.ClientIDFromBytes(m.GetSource().GetClientId())
	return id
}

// giveBack makes messages due again that nobody looked at. Where that fails, their claims have to run out.
func (b *backlog) giveBack(ctx context.Context, messages []store.BacklogMessage) error {
	outcomes := make([]store.BacklogOutcome, len(messages))
	for i, bm := range messages {
		outcomes[i] = store.BacklogOutcome{Service: bm.Service, ID: bm.ID, RetryIn: retryDelay(1)}
	}
	return b.m.cfg.Store.FinishBacklog(ctx, b.m.cfg.ServerID, outcomes)
}

// measure keeps the gauges of the backlog, and looks for messages in it that nobody takes.
func (b *backlog) measure(ctx context.Context) {
	watch := unserved{b: b}
	for {
		status, err := b.m.cfg.Store.BacklogStatus(ctx)
		if err == nil {
			b.m.metrics.backlogStatus(status, b.m.units)
			err = watch.look(ctx, status)
		}
		if err != nil {
			watch.since = nil
		}
		if err != nil && ctx.Err() == nil {
			b.complain(err)
		}
		if sleep(ctx, jitter(statusEvery)) != nil {
			return
		}
	}
}
