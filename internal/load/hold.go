package load

import (
	"context"
	"time"

	"github.com/farspeak/farspeak/internal/load/fleet"
	"github.com/farspeak/farspeak/internal/load/measure"
)

// HoldConfig is for Hold.
type HoldConfig struct {
	Config
	// Before is how long the installation is watched without any session, to know what it does by itself.
	Before time.Duration
	// Reconnect drops all sessions after the ramp and connects again, which resumes TLS where Job.Resume is set.
	Reconnect bool
	// Work is how long all clients send messages, by Sending, before they are left alone. 0: they do nothing at all.
	Work    time.Duration
	Sending fleet.Sending
	// For is how long the clients stay connected with nothing to do.
	For time.Duration
}

// Hold connects clients and leaves them alone: what does a session cost, right after it began and after a while?
func Hold(ctx context.Context, c HoldConfig) (*Result, error) {
	return play(ctx, "hold", c.Config, func(ctx context.Context, r *run) error {
		var alone float64 // statements a second
		if c.Before > 0 {
			p, err := r.phase(ctx, "empty", func(ctx context.Context) error { return pause(ctx, c.Before) })
			if err != nil {
				return err
			}
			alone = float64(p.Statements.All()) / p.Seconds
		}
		empty := r.usage()
		if _, err := r.connectAll(ctx); err != nil {
			return err
		}
		if c.Reconnect {
			if err := r.reconnectAll(ctx, empty); err != nil {
				return err
			}
		}
		if c.Work > 0 {
			if err := r.work(ctx, c, empty); err != nil {
				return err
			}
		}
		p, err := r.phase(ctx, "idle", func(ctx context.Context) error { return pause(ctx, c.For) })
		r.memory("after_idle", "after the idle time", empty)
		r.idleCost(p, alone)
		return err
	})
}

// reconnectAll drops all sessions and connects again.
func (r *run) reconnectAll(ctx context.Context, empty map[string]measure.Usage) error {
	if err := r.crew.do(ctx, all(fleet.Command{Disconnect: true})); err != nil {
		return err
	}
	err := r.crew.until(ctx, func(c fleet.Counts) bool { return c[fleet.Connected] == 0 })
	if err == nil {
		err = pause(ctx, r.Settle)
	}
	if err != nil {
		return err
	}
	p, err := r.phase(ctx, "reconnect", r.connect)
	connects := float64(p.counts[fleet.Connects])
	r.result.add("reconnects_per_second", "Connects of known clients", connects/p.Seconds, "/s")
	r.result.add("resumed_share", "TLS sessions resumed", 100*float64(p.counts[fleet.Resumed])/max(1, connects), "%")
	r.costOf(p, "reconnect", "reconnect", connects, "ms", 1000)
	if err == nil {
		err = pause(ctx, r.Settle)
	}
	r.memory("after_reconnect", "after reconnecting", empty)
	return err
}

// work has all clients send for a while.
func (r *run) work(ctx context.Context, c HoldConfig, empty map[string]measure.Usage) error {
	c.Sending.Closed = c.Sending.Rate == 0
	_, err := r.phase(ctx, "work", func(ctx context.Context) error { return r.send(ctx, c.Sending, c.Work) })
	if err == nil {
		err = r.drainUp(ctx)
	}
	r.memory("after_work", "after work", empty)
	return err
}

// idleCost tells what sessions cost that did nothing. Without any the installation takes some statements a second alone.
func (r *run) idleCost(p *Phase, alone float64) {
	thousandMinutes := float64(r.crew.counts()[fleet.Connected]) / 1000 * p.Seconds / 60
	r.costOf(p, "1000_idle_minutes", "1,000 sessions and minute, idle", thousandMinutes, "s", 1)
	if alone > 0 && thousandMinutes > 0 {
		more := float64(p.Statements.All()) - alone*p.Seconds
		r.result.add("more_statements_per_1000_idle_minutes", "Statements that they add", more/thousandMinutes, "")
	}
	r.result.add("idle_lost", "Sessions lost while idle", float64(p.counts[fleet.Lost]), "")
}
