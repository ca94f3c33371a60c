package load

import (
	"slices"
	"time"

	"github.com/farspeak/farspeak/internal/load/fleet"
	"github.com/farspeak/farspeak/internal/load/measure"
)

// Result is what a scenario measured.
type Result struct {
	Scenario string    `json:"scenario"`
	Started  time.Time `json:"started"`
	Seconds  float64   `json:"seconds"`
	Clients  int       `json:"clients"`
	// Others is how many cores worked for processes that are not watched, in the worst phase. What was measured beside
	// such work is slower than it would be.
	Others float64 `json:"others_cores"`
	// Stolen is how many cores' work the host of a virtual machine had wait while it let others run, in the worst phase.
	Stolen float64 `json:"stolen_cores"`
	// Interrupted says that it was ended before its time; Problem is what else went wrong.
	Interrupted bool   `json:"interrupted,omitempty"`
	Problem     string `json:"problem,omitempty"`

	Figures   []Figure                   `json:"figures"`
	Latencies map[string]measure.Summary `json:"latencies"`
	Phases    []Phase                    `json:"phases"`
	Counts    map[string]int64           `json:"counts"`
	Failures  []Failure                  `json:"failures,omitempty"`
	Series    []Point                    `json:"series"`
}

// Figure is one number that the scenario is about.
type Figure struct {
	Name  string  `json:"name"` // for programs
	Text  string  `json:"text"` // for people
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
}

// Failure is something that went wrong, and how often.
type Failure struct {
	Text  string `json:"text"`
	Count int64  `json:"count"`
}

// Phase is a part of a scenario.
type Phase struct {
	Name    string           `json:"name"`
	Seconds float64          `json:"seconds"`
	Counts  map[string]int64 `json:"counts"`
	// Used is CPU time in seconds, Resident memory in bytes at the phase's end, by process; "load" is the load tool itself.
	Used     map[string]float64 `json:"cpu_seconds"`
	Resident map[string]int64   `json:"resident_bytes"`
	// Others is how many cores worked for processes that are not watched.
	Others float64 `json:"others_cores"`
	// Stolen is how many cores' work the host of a virtual machine had wait.
	Stolen float64 `json:"stolen_cores"`
	// Statements are the database's own counters.
	Statements measure.Statements `json:"statements,omitempty"`

	counts fleet.Counts
}

// Point is a moment of the run.
type Point struct {
	Seconds   float64            `json:"t"`
	Connected int64              `json:"connected"`
	Rate      float64            `json:"rate"` // messages a second that arrived or were acknowledged
	Latencies map[string]Spot    `json:"latencies,omitempty"`
	Resident  map[string]int64   `json:"resident_bytes,omitempty"`
	Used      map[string]float64 `json:"cpu,omitempty"` // cores
}

// Spot is the latency of one moment, in milliseconds.
type Spot struct {
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
}

// add appends a figure.
func (r *Result) add(name, text string, value float64, unit string) {
	r.Figures = append(r.Figures, Figure{name, text, value, unit})
}

// Figure looks a number up; ok is false when the scenario has none of that name.
func (r *Result) Figure(name string) (value float64, ok bool) {
	i := slices.IndexFunc(r.Figures, func(f Figure) bool { return f.Name == name })
	if i < 0 {
		return 0, false
	}
	return r.Figures[i].Value, true
}

// countsByName leaves out what is zero.
func countsByName(c fleet.Counts) map[string]int64 {
	named := make(map[string]int64)
	for i, n := range c {
		if n != 0 {
			named[fleet.Count(i).String()] = n
		}
	}
	return named
}
