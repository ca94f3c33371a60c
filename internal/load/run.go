package load

import (
	"context"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/load/fleet"
	"github.com/farspeak/farspeak/internal/load/heap"
	"github.com/farspeak/farspeak/internal/load/measure"
)

// itself is the name under which the load tool's own use is told.
const itself = "load"

// run is a scenario under way.
type run struct {
	Config
	name    string
	clients []identity.ClientID
	crew    *crew
	result  *Result
	began   time.Time

	mu     sync.Mutex
	watch  map[string]int // processes by name; guarded by mu
	extra  func() string  // what the scenario adds to the progress line; guarded by mu
	series []Point        // guarded by mu
}

// play runs a scenario: its body on connected fleets, sampled meanwhile. The result is there even when the context ended,
// or the scenario failed after it began.
func play(ctx context.Context, name string, c Config, body func(context.Context, *run) error) (*Result, error) {
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
	defer heap.Floor()()
	clients, err := c.keys()
	if err != nil {
		return nil, err
	}
	r := &run{Config: c, name: name, clients: clients, watch: maps.Clone(c.Watch), began: time.Now()}
	if r.watch == nil {
		r.watch = make(map[string]int)
	}
	r.result = &Result{Scenario: name, Started: r.began, Clients: c.Clients, Latencies: make(map[string]measure.Summary)}
	if r.crew, err = newCrew(ctx, c); err != nil {
		return nil, err
	}
	sampling, stop := context.WithCancel(ctx)
	var sampler sync.WaitGroup
	sampler.Go(func() { r.sample(sampling) })
	err = body(ctx, r)
	stop()
	sampler.Wait()
	r.finish(ctx, err)
	return r.result, r.crew.close()
}

// finish fills in what all results have.
func (r *run) finish(ctx context.Context, err error) {
	r.result.Seconds = time.Since(r.began).Seconds()
	r.result.Series = r.series // nobody samples any more
	r.result.Interrupted = ctx.Err() != nil
	if err != nil && !r.result.Interrupted {
		r.result.Problem = err.Error()
	}
	r.result.Counts = countsByName(r.crew.counts())
	for _, p := range r.result.Phases {
		r.result.Others, r.result.Stolen = max(r.result.Others, p.Others), max(r.result.Stolen, p.Stolen)
	}
	r.result.Failures = append(sortedFailures(r.crew.failures()), r.result.Failures...)
	for i, d := range r.crew.latencies() {
		if d.Count() > 0 {
			r.result.Latencies[fleet.Latency(i).String()] = d.Summary()
		}
	}
}

// say adds to the progress line.
func (r *run) say(extra func() string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.extra = extra
}

// watchProcess follows a process under a name, in place of the one before.
func (r *run) watchProcess(name string, pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watch[name] = pid
}

func (r *run) watched() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.watch)
}

// usage is what the processes used so far, the load tool's own children included under its name.
func (r *run) usage() map[string]measure.Usage {
	used := make(map[string]measure.Usage)
	for name, pid := range r.watched() {
		if u, err := measure.ReadUsage(pid); err == nil { // it may be away just now
			used[name] = u
		}
	}
	for _, pid := range append(r.crew.pids(), os.Getpid()) {
		if u, err := measure.ReadUsage(pid); err == nil {
			sum := used[itself]
			used[itself] = measure.Usage{CPU: sum.CPU + u.CPU, Resident: sum.Resident + u.Resident}
		}
	}
	return used
}
