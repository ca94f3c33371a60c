package load

import (
	"context"
	"errors"
	"sync"

	"github.com/farspeak/farspeak/internal/load/fleet"
	"github.com/farspeak/farspeak/internal/load/measure"
)

// crew is the fleets of a run, wherever they are.
type crew struct {
	fleets  []*part
	running sync.WaitGroup

	// Guarded by mu.
	mu       sync.Mutex
	closing  bool
	broken   bool          // a fleet ended by itself
	changed  chan struct{} // closed and replaced with each report, and when a fleet ends
	interval fleet.Distributions
	total    fleet.Distributions
}

// newCrew starts all fleets. They are not connected yet.
func newCrew(ctx context.Context, c Config) (*crew, error) {
	w := &crew{changed: make(chan struct{})}
	for i := range c.Processes {
		first, next := c.Clients*i/c.Processes, c.Clients*(i+1)/c.Processes
		p := &part{crew: w, first: first, count: next - first, done: make(chan fleet.Answer, 1), ended: make(chan struct{})}
		if err := p.launch(ctx, c.Command); err != nil {
			return nil, errors.Join(err, w.close())
		}
		w.fleets = append(w.fleets, p)
	}
	err := w.do(ctx, func(p *part) fleet.Command {
		job := c.Job
		job.First, job.Count = p.first, p.count
		job.ConnectRate = w.share(p, job.ConnectRate)
		return fleet.Command{Start: &job}
	})
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// pids are the child processes.
func (w *crew) pids() []int {
	var pids []int
	for _, p := range w.fleets {
		if p.pid != 0 {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// share is the part of a rate that falls to a fleet.
func (w *crew) share(p *part, rate float64) float64 {
	all := 0
	for _, other := range w.fleets {
		all += other.count
	}
	return rate * float64(p.count) / float64(max(all, 1))
}

// do gives all fleets a command at once and waits for their answers. A command that was given is waited for, so that
// answers and commands stay together.
func (w *crew) do(ctx context.Context, command func(*part) fleet.Command) error {
	_, err := w.ask(ctx, command)
	return err
}

func (w *crew) ask(ctx context.Context, command func(*part) fleet.Command) ([]fleet.Answer, error) {
	answers := make([]fleet.Answer, len(w.fleets))
	errs := make([]error, len(w.fleets))
	var asking sync.WaitGroup
	for i, p := range w.fleets {
		asking.Go(func() { answers[i], errs[i] = p.order(context.WithoutCancel(ctx), command(p)) })
	}
	asking.Wait()
	return answers, errors.Join(errs...)
}

// all is a command that is the same for all.
func all(c fleet.Command) func(*part) fleet.Command {
	return func(*part) fleet.Command { return c }
}

// errPartEnded says that a process with clients is gone.
var errPartEnded = errors.New("a process with clients ended")

// partEnded notes that a fleet says nothing more.
func (w *crew) partEnded(p *part) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(p.ended)
	w.broken = w.broken || !w.closing
	w.announce()
}

// announce wakes those who wait for a change.
func (w *crew) announce() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// until waits for a condition on the counts; it is looked at with each report. The error is that of the context.
func (w *crew) until(ctx context.Context, met func(fleet.Counts) bool) error {
	for {
		w.mu.Lock()
		changed, broken := w.changed, w.broken
		w.mu.Unlock()
		switch {
		case broken:
			return errPartEnded
		case met(w.counts()):
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// account collects what the fleets can prove: which messages arrived, and how many of its own each client saw
// acknowledged.
func (w *crew) account(ctx context.Context) (*measure.Seen, []uint64, error) {
	answers, err := w.ask(ctx, all(fleet.Command{Account: true}))
	if err != nil {
		return nil, nil, err
	}
	seen := measure.NewSeen()
	var acked []uint64
	for _, a := range answers {
		if a.Account == nil {
			return nil, nil, errors.New("a fleet gives no account")
		}
		theirs := measure.NewSeen()
		if err := theirs.UnmarshalBinary(a.Account.Seen); err != nil {
			return nil, nil, err
		}
		seen.Merge(theirs)
		acked = append(acked, a.Account.Acked...)
	}
	return seen, acked, nil
}

// close ends all fleets and waits for them.
func (w *crew) close() error {
	w.mu.Lock()
	w.closing = true
	w.mu.Unlock()
	var errs []error
	for _, p := range w.fleets {
		errs = append(errs, p.in.Close())
	}
	w.running.Wait() // reads to the end of what they say
	for _, p := range w.fleets {
		errs = append(errs, p.unheard, p.wait())
	}
	return errors.Join(errs...)
}
