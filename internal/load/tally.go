package load

import (
	"cmp"
	"maps"
	"slices"

	"github.com/farspeak/farspeak/internal/load/fleet"
)

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
	w.announce()
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

// sortedFailures are failures as lines, most frequent first.
func sortedFailures(failures map[string]int64) []Failure {
	var list []Failure
	for _, text := range slices.Sorted(maps.Keys(failures)) {
		list = append(list, Failure{text, failures[text]})
	}
	slices.SortStableFunc(list, func(a, b Failure) int { return cmp.Compare(b.Count, a.Count) })
	return list
}
