package load

import (
	"context"
	"errors"
	"time"

	"github.com/farspeak/farspeak/internal/load/fleet"
)

// UpConfig is for Up.
type UpConfig struct {
	Config
	// Sending is what the clients send. With Rate 0 they send as fast as Job.Window allows.
	Sending fleet.Sending
	// For is how long.
	For time.Duration
	// Backend takes the messages of the service, when it is a GRPC one with a backend here; else nil.
	Backend *Backend
}

// Up has clients send messages to a server-side service: how many pass, what do they cost, and how long does a client wait
// for the acknowledgement?
func Up(ctx context.Context, c UpConfig) (*Result, error) {
	c.Sending.Closed = c.Sending.Rate == 0
	return play(ctx, "up", c.Config, func(ctx context.Context, r *run) error {
		if c.Backend != nil {
			c.Backend.begin(r.Job.Run, r.Clients)
		}
		if _, err := r.connectAll(ctx); err != nil {
			return err
		}
		p, err := r.phase(ctx, "send", func(ctx context.Context) error { return r.send(ctx, c.Sending, c.For) })
		r.upFigures(p)
		if err == nil {
			err = r.drainUp(ctx)
		}
		r.proveUp(ctx, c.Backend)
		return err
	})
}

// send makes the clients send for a while.
func (r *run) send(ctx context.Context, sending fleet.Sending, long time.Duration) error {
	err := r.crew.do(ctx, func(p *part) fleet.Command {
		s := sending
		s.Rate = r.crew.share(p, s.Rate)
		return fleet.Command{Send: &s}
	})
	if err != nil {
		return err
	}
	return pause(ctx, long)
}

func (r *run) upFigures(p *Phase) {
	acked := float64(p.counts[fleet.Acked])
	r.result.add("messages_per_second", "Messages acknowledged", acked/p.Seconds, "/s")
	if records := float64(p.counts[fleet.Records]); records > 0 {
		r.result.add("messages_per_record", "Messages in a record", float64(p.counts[fleet.Sent])/records, "")
	}
	r.costOf(p, "message", "message", acked, "µs", 1e6)
	ack := r.crew.latencies()[fleet.AckTime].Summary()
	r.result.add("ack_p50_ms", "Due to acknowledged, p50", ack.P50, "ms")
	r.result.add("ack_p99_ms", "Due to acknowledged, p99", ack.P99, "ms")
	if n := p.counts[fleet.Throttled]; n > 0 {
		r.result.add("throttled", "Messages that were due and could not be sent", float64(n), "")
	}
}

// drainUp ends the sending and waits for what is in flight.
func (r *run) drainUp(ctx context.Context) error {
	if err := r.crew.do(ctx, all(fleet.Command{Rest: true})); err != nil {
		return err
	}
	return r.untilQuiet(ctx, func(c fleet.Counts) int64 { return c[fleet.Acked] })
}

// quietFor is how long nothing may happen before it is taken that nothing will.
const quietFor = 2 * time.Second

// errStillBusy ends the wait for what is under way.
var errStillBusy = errors.New("work is still under way")

// untilQuiet waits until a count stands still, at most for Drain.
func (r *run) untilQuiet(ctx context.Context, count func(fleet.Counts) int64) error {
	last, since := int64(-1), time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, r.Drain, errStillBusy)
	defer cancel()
	err := r.crew.until(ctx, func(c fleet.Counts) bool {
		if n := count(c); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > quietFor
	})
	if context.Cause(ctx) == errStillBusy {
		return nil // what is still under way counts as lost, if it does not arrive
	}
	return err
}

// proveUp compares what clients saw acknowledged with what the backend got.
func (r *run) proveUp(ctx context.Context, b *Backend) {
	if b == nil {
		return
	}
	_, acked, err := r.crew.account(ctx)
	if err != nil {
		r.result.Problem = err.Error()
		return
	}
	got := b.compare(acked)
	r.result.add("backend_received", "Messages that reached the backend", float64(got.received), "")
	r.result.add("lost", "Acknowledged and not arrived", float64(got.lost), "")
	r.result.add("duplicates", "Delivered again", float64(got.duplicates), "")
	if d := b.latencies.Take(); d != nil {
		r.result.Latencies["to_backend"] = d.Summary()
	}
}
