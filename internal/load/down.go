package load

import (
	"context"
	"errors"
	"time"

	"github.com/farspeak/farspeak/internal/load/fleet"
)

// DownConfig is for Down.
type DownConfig struct {
	Config
	// Size of each payload in bytes.
	Size int
	// Submitters call one after the other, each as soon as its last call is answered. With Rate they are not used:
	// messages are submitted at that rate a second, however long a call takes.
	Submitters int
	Rate       float64
	// For is how long, Messages how many at most; 0 is no limit.
	For      time.Duration
	Messages uint64
}

// Down submits messages for clients: how many are delivered and acknowledged, what do they cost, and how long do they take
// from the submission to the client?
func Down(ctx context.Context, c DownConfig) (*Result, error) {
	return play(ctx, "down", c.Config, func(ctx context.Context, r *run) error {
		s, err := newSubmitter(r, c.Size)
		if err != nil {
			return err
		}
		if _, err := r.connectAll(ctx); err != nil {
			return err
		}
		r.say(s.progress)
		p, err := r.phase(ctx, "deliver", func(ctx context.Context) error { return r.deliver(ctx, s, c) })
		r.downFigures(p, s)
		r.proveDown(ctx, s)
		return err
	})
}

// deliver submits for a while and waits until everything arrived and is acknowledged.
func (r *run) deliver(ctx context.Context, s *submitter, c DownConfig) error {
	submitting, cancel := context.WithTimeout(ctx, c.For)
	defer cancel()
	began := time.Now()
	if c.Rate > 0 {
		s.openLoop(submitting, c.Rate)
	} else {
		s.closedLoop(submitting, c.Submitters, c.Messages)
	}
	s.took = time.Since(began)
	return r.untilDelivered(ctx, s)
}

// untilDelivered waits until all accepted messages arrived and were acknowledged, at most for Drain after the last sign of
// progress.
func (r *run) untilDelivered(ctx context.Context, s *submitter) error {
	accepted := int64(s.accepted.Count())
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	last := fleet.Counts{}
	patience := time.AfterFunc(r.Drain, func() { cancel(errStillBusy) })
	defer patience.Stop()
	err := r.crew.until(ctx, func(c fleet.Counts) bool {
		if c[fleet.Received] != last[fleet.Received] || c[fleet.AcksTaken] != last[fleet.AcksTaken] {
			last = c
			patience.Reset(r.Drain)
		}
		return c[fleet.Received] >= accepted && c[fleet.AcksTaken] >= c[fleet.Received]
	})
	if errors.Is(err, errStillBusy) {
		return nil // what is missing counts as lost
	}
	return err
}

func (r *run) downFigures(p *Phase, s *submitter) {
	accepted := float64(s.accepted.Count())
	if s.took > 0 {
		r.result.add("submitted_per_second", "Messages submitted", accepted/s.took.Seconds(), "/s")
	}
	r.result.add("messages_per_second", "Messages delivered and acknowledged", float64(p.counts[fleet.AcksTaken])/p.Seconds, "/s")
	r.costOf(p, "message", "message", float64(p.counts[fleet.Received]), "µs", 1e6)
	latencies := r.crew.latencies()
	arrival := latencies[fleet.ArrivalTime].Summary()
	r.result.add("arrival_p50_ms", "Submit to arrival, p50", arrival.P50, "ms")
	r.result.add("arrival_p99_ms", "Submit to arrival, p99", arrival.P99, "ms")
	r.result.add("arrival_max_ms", "Submit to arrival, longest", arrival.Max, "ms")
	r.result.add("late", "Arrivals after more than "+lateAfter.String(), float64(latencies[fleet.ArrivalTime].Above(lateAfter)+latencies[fleet.CatchUpTime].Above(lateAfter)), "")
	if d := s.latencies.Take(); d != nil {
		r.result.Latencies["submit"] = d.Summary()
	}
	r.result.add("refused", "Submissions refused", float64(s.failed.Load()), "")
}

// lateAfter is when an arrival counts as late: nothing but a lost hint explains it on an installation that is up.
const lateAfter = 5 * time.Second

// proveDown compares what was accepted with what arrived.
func (r *run) proveDown(ctx context.Context, s *submitter) {
	r.result.Failures = append(r.result.Failures, sortedFailures(s.failures)...)
	arrived, _, err := r.crew.account(ctx)
	if err != nil {
		r.result.Problem = err.Error()
		return
	}
	counts := r.crew.counts()
	r.result.add("lost", "Accepted and not arrived", float64(s.accepted.CountMissing(arrived)), "")
	r.result.add("duplicates", "Delivered again", float64(counts[fleet.Duplicates]), "")
	r.result.add("misdelivered", "Delivered to another client", float64(counts[fleet.Misdelivered]), "")
	r.result.add("unacknowledged", "Delivered and not acknowledged", float64(counts[fleet.Received]+counts[fleet.Broadcasts]-counts[fleet.AcksTaken]), "")
}
