package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/load/fleet"
	"github.com/farspeak/farspeak/internal/load/measure"
)

const (
	// commandTimeout bounds the answer of a fleet to a command; taking accounts of many clients is the slowest.
	commandTimeout = 2 * time.Minute
)

// crew is the fleets of a run, wherever they are.
type crew struct {
	fleets  []*part
	running sync.WaitGroup

	// Guarded by mu.
	mu       sync.Mutex
	changed  chan struct{} // closed and replaced with each report
	interval fleet.Distributions
	total    fleet.Distributions
}

// part is one fleet and the way to it.
type part struct {
	crew         *crew
	first, count int
	in           io.WriteCloser
	commands     *json.Encoder
	done         chan fleet.Answer // answers to commands
	ended        chan struct{}     // closed when it says nothing more
	wait         func() error      // for its end
	pid          int               // of its process, 0 for this one

	// Guarded by crew.mu.
	counts   fleet.Counts
	failures map[string]int64
	err      error
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

// launch starts a fleet in this process, or in a child.
func (p *part) launch(ctx context.Context, command []string) error {
	var out io.Reader
	if len(command) == 0 {
		fromUs, toFleet := io.Pipe()
		fromFleet, toUs := io.Pipe()
		served := make(chan error, 1)
		go func() { // wait waits for it
			err := fleet.Serve(context.WithoutCancel(ctx), fromUs, toUs)
			toUs.CloseWithError(io.EOF)
			fromUs.CloseWithError(io.ErrClosedPipe)
			served <- err
		}()
		p.in, out, p.wait = toFleet, fromFleet, func() error { return <-served }
	} else {
		child := exec.Command(command[0], command[1:]...)
		child.Stderr = os.Stderr
		child.SysProcAttr = childAttributes()
		var err error
		if p.in, err = child.StdinPipe(); err != nil {
			return err
		}
		if out, err = child.StdoutPipe(); err != nil {
			return err
		}
		if err := child.Start(); err != nil {
			return fmt.Errorf("start a process for clients: %w", err)
		}
		p.wait, p.pid = child.Wait, child.Process.Pid
	}
	p.commands = json.NewEncoder(p.in)
	p.crew.running.Go(func() { p.listen(out) })
	return nil
}

// listen takes what a fleet says, to its end.
func (p *part) listen(out io.Reader) {
	defer close(p.ended)
	decoder := json.NewDecoder(out)
	for {
		var a fleet.Answer
		if err := decoder.Decode(&a); err != nil {
			if !errors.Is(err, io.EOF) {
				p.crew.failed(p, err)
			}
			return
		}
		if a.Report != nil {
			p.crew.take(p, a.Report)
		}
		if a.Done {
			p.done <- a
		}
	}
}

func (w *crew) failed(p *part, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.err = err
}

// take adds a report to what is known.
func (w *crew) take(p *part, r *fleet.Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.counts, p.failures = r.Counts, r.Failures
	for i, d := range r.Latencies {
		if d != nil {
			w.interval[i] = w.interval[i].Merge(d)
			w.total[i] = w.total[i].Merge(d)
		}
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// order gives one fleet a command and waits for the answer.
func (p *part) order(ctx context.Context, c fleet.Command) (fleet.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	if err := p.commands.Encode(c); err != nil {
		return fleet.Answer{}, fmt.Errorf("command to a fleet: %w", err)
	}
	select {
	case a := <-p.done:
		if a.Error != "" {
			return a, errors.New(a.Error)
		}
		return a, nil
	case <-p.ended:
		return fleet.Answer{}, errors.New("a process with clients ended")
	case <-ctx.Done():
		return fleet.Answer{}, fmt.Errorf("a fleet does not answer: %w", ctx.Err())
	}
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

// counts are those of all fleets together.
func (w *crew) counts() fleet.Counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	var sum fleet.Counts
	for _, p := range w.fleets {
		sum = sum.Plus(p.counts)
	}
	return sum
}

// failures are those of all fleets together.
func (w *crew) failures() map[string]int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum := make(map[string]int64)
	for _, p := range w.fleets {
		for text, n := range p.failures {
			sum[text] += n
		}
	}
	return sum
}

// takeInterval returns the latencies since the last call.
func (w *crew) takeInterval() fleet.Distributions {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := w.interval
	w.interval = fleet.Distributions{}
	return taken
}

// restart forgets the latencies so far.
func (w *crew) restart(l ...fleet.Latency) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range l {
		w.total[l] = nil
	}
}

// latencies are those since the beginning, or since restart.
func (w *crew) latencies() fleet.Distributions {
	w.mu.Lock()
	defer w.mu.Unlock()
	var copies fleet.Distributions
	for i, d := range w.total {
		copies[i] = copies[i].Merge(d)
	}
	return copies
}

// until waits for a condition on the counts; it is looked at with each report. The error is that of the context.
func (w *crew) until(ctx context.Context, met func(fleet.Counts) bool) error {
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		if met(w.counts()) {
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
	var errs []error
	for _, p := range w.fleets {
		errs = append(errs, p.in.Close())
	}
	w.running.Wait() // reads to the end of what they say
	for _, p := range w.fleets {
		errs = append(errs, p.wait())
	}
	return errors.Join(errs...)
}

// sortedFailures are failures as lines, most frequent first.
func sortedFailures(failures map[string]int64) []Failure {
	var list []Failure
	for _, text := range slices.Sorted(maps.Keys(failures)) {
		list = append(list, Failure{text, failures[text]})
	}
	slices.SortStableFunc(list, func(a, b Failure) int { return int(b.Count - a.Count) })
	return list
}
