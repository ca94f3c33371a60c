package load

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/farspeak/farspeak/internal/load/fleet"
	"github.com/farspeak/farspeak/internal/load/measure"
)

// mark is the state at the beginning of a phase.
type mark struct {
	at         time.Time
	counts     fleet.Counts
	used       map[string]measure.Usage
	pids       map[string]int
	machine    measure.Machine // zero where it cannot be told
	statements measure.Statements
}

func (r *run) mark(ctx context.Context) mark {
	m := mark{at: time.Now(), counts: r.crew.counts(), used: r.usage(), pids: r.watched()}
	m.machine, _ = measure.ReadMachine()
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
	p.Others, p.Stolen = beside(from, to, p.Used, p.Seconds)
	if from.statements != nil && to.statements != nil {
		p.Statements = to.statements.Since(from.statements)
	}
	r.result.Phases = append(r.result.Phases, p)
	return &r.result.Phases[len(r.result.Phases)-1], err
}

// beside is how many cores worked for processes that are not watched, and how many the host took away.
func beside(from, to mark, used map[string]float64, seconds float64) (others, stolen float64) {
	if from.machine.Busy == 0 || to.machine.Busy == 0 {
		return 0, 0
	}
	busy := (to.machine.Busy - from.machine.Busy).Seconds()
	for _, watched := range used {
		busy -= watched
	}
	return max(0, busy/seconds), (to.machine.Stolen - from.machine.Stolen).Seconds() / seconds
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
