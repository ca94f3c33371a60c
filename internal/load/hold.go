package load

import (
	"context"
	"time"

	"github.com/farspeak/farspeak/internal/load/fleet"
)

// HoldConfig is for Hold.
type HoldConfig struct {
	Config
	// For is how long the clients stay connected with nothing to do.
	For time.Duration
}

// Hold connects clients and leaves them alone: what does a session cost, right after it began and after a while?
func Hold(ctx context.Context, c HoldConfig) (*Result, error) {
	return play(ctx, "hold", c.Config, func(ctx context.Context, r *run) error {
		empty := r.usage()
		if _, err := r.connectAll(ctx); err != nil {
			return err
		}
		p, err := r.phase(ctx, "idle", func(ctx context.Context) error { return pause(ctx, c.For) })
		r.memory("after_idle", "after the idle time", empty)
		r.idleCost(p)
		return err
	})
}

// idleCost tells what sessions cost that did nothing.
func (r *run) idleCost(p *Phase) {
	thousandMinutes := float64(r.crew.counts()[fleet.Connected]) / 1000 * p.Seconds / 60
	r.costOf(p, "1000_idle_minutes", "1,000 sessions and minute, idle", thousandMinutes, "s", 1)
	r.result.add("idle_lost", "Sessions lost while idle", float64(p.counts[fleet.Lost]), "")
}
