package load

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/farspeak/farspeak/internal/load/fleet"
	"github.com/farspeak/farspeak/internal/load/measure"
)

// sampleEvery is the time between two points of the series, at first. When there are maxPoints, every other one goes and the
// time doubles.
const (
	sampleEvery = 250 * time.Millisecond
	maxPoints   = 1200
)

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
		if r.addPoint(p) {
			every *= 2
			ticker.Reset(every)
		}
		r.Progress(r.line(p, counts))
		before, last, usedBefore = counts, now, used
	}
}

// addPoint adds to the series; thinned says that there were too many points, and every other one is gone.
func (r *run) addPoint(p Point) (thinned bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.series = append(r.series, p); len(r.series) < maxPoints {
		return false
	}
	r.series = everyOther(r.series)
	return true
}

// peak is the largest resident memory of a process so far, in bytes.
func (r *run) peak(process string) (most int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.series {
		most = max(most, p.Resident[process])
	}
	return most
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
