package load

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/load/fleet"
	"github.com/farspeak/farspeak/internal/load/measure"
)

const (
	// sampleEvery is the time between two points of the series, at first. When there are maxPoints, every other one goes and
	// the time doubles.
	sampleEvery = 250 * time.Millisecond
	maxPoints   = 1200
	// itself is the name under which the load tool's own use is told.
	itself = "load"
)

// run is a scenario under way.
type run struct {
	Config
	name    string
	clients []identity.ClientID
	crew    *crew
	result  *Result
	began   time.Time

	mu    sync.Mutex
	watch map[string]int // processes by name; guarded by mu
	extra func() string  // what the scenario adds to the progress line; guarded by mu
}

// play runs a scenario: its body on connected fleets, sampled meanwhile. The result is there even when the context ended,
// or the scenario failed after it began.
func play(ctx context.Context, name string, c Config, body func(context.Context, *run) error) (*Result, error) {
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
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
	r.result.Interrupted = ctx.Err() != nil
	if err != nil && !r.result.Interrupted {
		r.result.Problem = err.Error()
	}
	r.result.Counts = countsByName(r.crew.counts())
	for _, p := range r.result.Phases {
		r.result.Others = max(r.result.Others, p.Others)
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

// sample follows the run until ctx ends.
func (r *run) sample(ctx context.Context) {
	every := sampleEvery
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	before, last, usedBefore := r.crew.counts(), time.Now(), r.usage()
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			return
		case now = <-ticker.C:
		}
		counts, used := r.crew.counts(), r.usage()
		p := r.point(now.Sub(last).Seconds(), counts, counts.Since(before), used, usedBefore)
		if r.result.Series = append(r.result.Series, p); len(r.result.Series) == maxPoints {
			r.result.Series = everyOther(r.result.Series)
			every *= 2
			ticker.Reset(every)
		}
		r.Progress(r.line(p, counts))
		before, last, usedBefore = counts, now, used
	}
}

func everyOther(points []Point) []Point {
	kept := points[:0]
	for i := 1; i < len(points); i += 2 {
		kept = append(kept, points[i])
	}
	return kept
}

// point is the state of the run after an interval.
func (r *run) point(seconds float64, counts, grown fleet.Counts, used, before map[string]measure.Usage) Point {
	p := Point{
		Seconds: time.Since(r.began).Seconds(), Connected: counts[fleet.Connected],
		Rate:      float64(grown[fleet.Acked]+grown[fleet.Received]+grown[fleet.Broadcasts]) / seconds,
		Latencies: make(map[string]Spot), Resident: make(map[string]int64), Used: make(map[string]float64),
	}
	for i, d := range r.crew.takeInterval() {
		if s := d.Summary(); s.Count > 0 {
			p.Latencies[fleet.Latency(i).String()] = Spot{s.P50, s.P99, s.Max}
		}
	}
	for name, u := range used {
		p.Resident[name] = u.Resident
		if b, ok := before[name]; ok && u.CPU >= b.CPU {
			p.Used[name] = (u.CPU - b.CPU).Seconds() / seconds
		}
	}
	return p
}

// line is the progress line.
func (r *run) line(p Point, counts fleet.Counts) string {
	text := fmt.Sprintf("%s %4.0f s  connected %d of %d", r.name, p.Seconds, p.Connected, r.Clients)
	if p.Rate > 0 {
		text += fmt.Sprintf("  %.0f messages/s", p.Rate)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Latencies)) {
		text += fmt.Sprintf("  %s p50 %.1f p99 %.1f ms", name, p.Latencies[name].P50, p.Latencies[name].P99)
	}
	if n := counts[fleet.Failures] + counts[fleet.Lost]; n > 0 {
		text += fmt.Sprintf("  failures %d", n)
	}
	r.mu.Lock()
	extra := r.extra
	r.mu.Unlock()
	if extra != nil {
		text += "  " + extra()
	}
	return text
}

// mark is the state at the beginning of a phase.
type mark struct {
	at         time.Time
	counts     fleet.Counts
	used       map[string]measure.Usage
	pids       map[string]int
	busy       time.Duration // of the machine; 0 where it cannot be told
	statements measure.Statements
}

func (r *run) mark(ctx context.Context) mark {
	m := mark{at: time.Now(), counts: r.crew.counts(), used: r.usage(), pids: r.watched()}
	m.busy, _ = measure.Busy()
	if r.Database != nil {
		m.statements, _ = r.Database.Read(context.WithoutCancel(ctx)) // without an answer there are no figures of it
	}
	return m
}

// phase does a part of the scenario and keeps what it took.
func (r *run) phase(ctx context.Context, name string, work func(context.Context) error) (*Phase, error) {
	r.Phase(name)
	from := r.mark(ctx)
	err := work(ctx)
	to := r.mark(ctx)
	p := Phase{
		Name: name, Seconds: to.at.Sub(from.at).Seconds(), counts: to.counts.Since(from.counts),
		Used: make(map[string]float64), Resident: make(map[string]int64),
	}
	p.Counts = countsByName(p.counts)
	for name, u := range to.used {
		p.Resident[name] = u.Resident
		if to.pids[name] == from.pids[name] {
			u.CPU -= from.used[name].CPU
		}
		p.Used[name] = u.CPU.Seconds() // all of it, when the process is a new one
	}
	p.Others = others(from, to, p.Used, p.Seconds)
	if from.statements != nil && to.statements != nil {
		p.Statements = to.statements.Since(from.statements)
	}
	r.result.Phases = append(r.result.Phases, p)
	return &r.result.Phases[len(r.result.Phases)-1], err
}

// others is how many cores worked for processes that are not watched.
func others(from, to mark, used map[string]float64, seconds float64) float64 {
	if from.busy == 0 || to.busy == 0 {
		return 0
	}
	busy := (to.busy - from.busy).Seconds()
	for _, watched := range used {
		busy -= watched
	}
	return max(0, busy/seconds)
}

// connectAll connects all clients, as a phase of its own, and waits until the work of it has ended.
func (r *run) connectAll(ctx context.Context) (*Phase, error) {
	empty := r.usage()
	p, err := r.phase(ctx, "connect", r.connect)
	r.costOf(p, "connect", "connect", float64(p.counts[fleet.Connects]), "ms", 1000)
	if n := float64(p.counts[fleet.Connects]); n > 0 {
		r.result.add("connects_per_second", "Connects", n/p.Seconds, "/s")
	}
	if err != nil {
		return p, err
	}
	if err := pause(ctx, r.Settle); err != nil {
		return p, err
	}
	r.memory("after_ramp", "after the ramp", empty)
	return p, nil
}

func (r *run) connect(ctx context.Context) error {
	if err := r.crew.do(ctx, all(fleet.Command{Connect: true})); err != nil {
		return err
	}
	return r.untilConnected(ctx)
}

func (r *run) untilConnected(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.ConnectTimeout, errNotConnected)
	defer cancel()
	return r.crew.until(ctx, func(c fleet.Counts) bool { return c[fleet.Connected] >= int64(r.Clients) })
}

var errNotConnected = errors.New("not all clients connected in time")

// memory adds what a session takes in each watched process, measured against its use when there was none.
func (r *run) memory(name, when string, empty map[string]measure.Usage) {
	used := r.usage()
	for _, process := range slices.Sorted(maps.Keys(used)) {
		u, connected := used[process], r.sessionsOf(process, used)
		if before, ok := empty[process]; ok && connected > 0 && process != "fs-admin" {
			perClient := float64(u.Resident-before.Resident) / connected / 1024
			r.result.add(process+"_kib_per_session_"+name, process+" memory a session, "+when, perClient, "KiB")
		}
	}
}

// sessionsOf is how many sessions a process has a part in. Those whose names begin as that of fs-server share them.
func (r *run) sessionsOf(process string, watched map[string]measure.Usage) float64 {
	connected := float64(r.crew.counts()[fleet.Connected])
	if !strings.HasPrefix(process, serverName) {
		return connected
	}
	servers := 0.0
	for name := range watched {
		if strings.HasPrefix(name, serverName) {
			servers++
		}
	}
	return connected / servers
}

// costOf adds CPU time and statements per operation. CPU time comes in a unit of which scale are a second.
func (r *run) costOf(p *Phase, name, operation string, operations float64, unit string, scale float64) {
	if operations == 0 {
		return
	}
	for _, process := range slices.Sorted(maps.Keys(p.Used)) {
		r.result.add(process+"_cpu_per_"+name, process+" CPU per "+operation, p.Used[process]*scale/operations, unit)
	}
	if p.Statements != nil {
		r.result.add("statements_per_"+name, "Statements per "+operation, float64(p.Statements.All())/operations, "")
	}
}
