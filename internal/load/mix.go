package load

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/load/fleet"
)

// MixConfig is for Mix. Numbers are those of a day.
type MixConfig struct {
	Config
	// Day is how long the simulated day takes.
	Day time.Duration
	// Seed draws the same day again.
	Seed uint64
	// Reports is how many messages each client sends by itself, to Service; Tasks how many messages each client gets;
	// Hunts how many messages go to all clients. A client answers each task and each hunt with Replies messages.
	Reports, Tasks float64
	Hunts, Replies int
	// Service takes what clients send.
	Service string
	// Size of each payload in bytes, both ways.
	Size int
	// Away is the part of the time, from 0 to below 1, that a client is not connected, Trips how often it goes away.
	Away, Trips float64
	// Backend as in UpConfig.
	Backend *Backend
}

// thinking is the part of a day that a client takes at most until it answers: a bit less than two minutes.
const thinking = 1.0 / 800

// Mix plays the day of a fleet, faster: most clients are idle, some come and go, backends give tasks, start hunts and get
// results. Was all delivered, to those that were there and those that came back, and what did it cost?
func Mix(ctx context.Context, c MixConfig) (*Result, error) {
	return play(ctx, "mix", c.Config, func(ctx context.Context, r *run) error {
		s, err := newSubmitter(r, c.Size)
		if err != nil {
			return err
		}
		if c.Backend != nil {
			c.Backend.begin(r.Job.Run, r.Clients)
		}
		if _, err := r.connectAll(ctx); err != nil {
			return err
		}
		r.say(s.progress)
		var hunts []*hunt
		p, err := r.phase(ctx, "day", func(ctx context.Context) (err error) {
			hunts, err = r.day(ctx, s, c)
			return err
		})
		for _, h := range hunts {
			defer h.disable(ctx)
		}
		if err == nil {
			_, err = r.phase(ctx, "evening", func(ctx context.Context) error { return r.evening(ctx, s, len(hunts)) })
		}
		r.mixFigures(p, len(hunts))
		r.proveDown(ctx, s)
		r.proveUp(ctx, c.Backend)
		return err
	})
}

// day runs everything at once, for as long as the day takes.
func (r *run) day(ctx context.Context, s *submitter, c MixConfig) ([]*hunt, error) {
	perSecond := float64(r.Clients) / c.Day.Seconds()
	err := r.crew.do(ctx, func(p *part) fleet.Command {
		return fleet.Command{Send: &fleet.Sending{
			Service: c.Service, Size: c.Size, Batch: 100, Rate: r.crew.share(p, c.Reports*perSecond),
			Replies: c.Replies, ReplyDelay: time.Duration(thinking * float64(c.Day)),
		}}
	})
	if err == nil && c.Away > 0 && c.Trips > 0 {
		cycle := float64(c.Day) / c.Trips
		err = r.crew.do(ctx, all(fleet.Command{Churn: &fleet.Churn{
			Online: time.Duration(cycle * (1 - c.Away)), Away: time.Duration(cycle * c.Away), Seed: c.Seed,
		}}))
	}
	if err != nil {
		return nil, err
	}
	day, cancel := context.WithTimeout(ctx, c.Day)
	defer cancel()
	var tasks sync.WaitGroup
	tasks.Go(func() { s.poisson(day, c.Tasks*perSecond, c.Seed) })
	hunts, err := s.hunts(day, c)
	tasks.Wait()
	if ctx.Err() != nil {
		return hunts, context.Cause(ctx)
	}
	return hunts, err
}

// poisson submits at random times, some messages a second on average, until ctx ends.
func (s *submitter) poisson(ctx context.Context, rate float64, seed uint64) {
	if rate <= 0 {
		return
	}
	random := rand.New(rand.NewPCG(seed, 1))
	s.paced(ctx, func() time.Duration { return time.Duration(random.ExpFloat64() / rate * float64(time.Second)) })
}

// hunts starts broadcasts at even distances, the first after half of one, and waits for the end of the day.
func (s *submitter) hunts(day context.Context, c MixConfig) (hunts []*hunt, err error) {
	for i := range c.Hunts {
		wait := c.Day / time.Duration(c.Hunts)
		if i == 0 {
			wait /= 2
		}
		if pause(day, wait) != nil {
			return hunts, nil
		}
		h, err := s.broadcast(day, i, c.Job.Labels)
		if err != nil {
			return hunts, err
		}
		hunts = append(hunts, h)
	}
	<-day.Done()
	return hunts, nil
}

// evening brings all clients back and waits until everything was delivered and acknowledged.
func (r *run) evening(ctx context.Context, s *submitter, hunts int) error {
	if err := r.crew.do(ctx, all(fleet.Command{Settle: true})); err != nil {
		return err
	}
	if err := r.untilConnected(ctx); err != nil {
		return err
	}
	if err := r.untilDelivered(ctx, s); err != nil {
		return err
	}
	if err := r.untilBroadcast(ctx, hunts, r.Drain); err != nil && ctx.Err() != nil {
		return err
	}
	if err := r.untilQuiet(ctx, func(c fleet.Counts) int64 { return c[fleet.Received] + c[fleet.Broadcasts] }); err != nil {
		return err
	}
	return r.drainUp(ctx)
}

func (r *run) mixFigures(p *Phase, hunts int) {
	counts := r.crew.counts()
	r.result.add("contacts", "Sessions that began during the day", float64(p.counts[fleet.Connects]), "")
	r.result.add("reports", "Messages of clients that were acknowledged", float64(counts[fleet.Acked]), "")
	r.result.add("tasks", "Messages to one client that arrived", float64(counts[fleet.Received]), "")
	r.result.add("hunts", "Messages to all clients", float64(hunts), "")
	r.result.add("hunts_missing", "Deliveries of them that are missing", float64(hunts*r.Clients)-float64(counts[fleet.Broadcasts]), "")
	moved := float64(p.counts[fleet.Acked] + p.counts[fleet.Received] + p.counts[fleet.Broadcasts])
	r.costOf(p, "message", "message of any kind", moved, "µs", 1e6)
	for _, l := range []fleet.Latency{fleet.ArrivalTime, fleet.BroadcastTime, fleet.CatchUpTime} {
		r.result.add(l.String()+"_p99_ms", "Latency "+l.String()+", p99", r.crew.latencies()[l].Summary().P99, "ms")
	}
}
