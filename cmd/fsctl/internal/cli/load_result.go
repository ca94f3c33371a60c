package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/render"
	"github.com/farspeak/farspeak/internal/load"
)

// loadResult prints what was measured.
func (a *app) loadResult(r *load.Result, l *loadFlags) error {
	if l.plot != "" {
		if err := load.Plot(l.plot, r); err != nil {
			return err
		}
	}
	if err := a.printLoad(r); err != nil {
		return err
	}
	switch {
	case r.Problem != "":
		return errors.New(r.Problem)
	case r.Interrupted:
		return errors.New("interrupted: the result is of the time until then")
	}
	return nil
}

// worthTelling is from how many cores on it is told what the machine did besides.
const worthTelling = 0.05

// printLoad prints JSON, or tables of figures, latencies and failures.
func (a *app) printLoad(r *load.Result) error {
	if a.output == "json" {
		return a.one(r)
	}
	fields := []render.Field{field("Scenario", r.Scenario), field("Clients", r.Clients), field("Seconds", number(r.Seconds))}
	for _, f := range r.Figures {
		fields = append(fields, field(f.Text, strings.TrimSpace(number(f.Value)+" "+f.Unit)))
	}
	if r.Others > worthTelling {
		fields = append(fields, field("Cores that other processes used", number(r.Others)))
	}
	if r.Stolen > worthTelling {
		fields = append(fields, field("Cores that the machine's host gave to others", number(r.Stolen)))
	}
	if err := a.one(r, fields...); err != nil {
		return err
	}
	fmt.Fprintln(a.Out)
	list := a.list("LATENCY (ms)", "COUNT", "MEAN", "P50", "P90", "P99", "P99.9", "MAX")
	for _, name := range sortedNames(r.Latencies) {
		s := r.Latencies[name]
		if err := list.Add(s, name, s.Count, number(s.Mean), number(s.P50), number(s.P90), number(s.P99), number(s.P999), number(s.Max)); err != nil {
			return err
		}
	}
	if err := list.Close(); err != nil || len(r.Failures) == 0 {
		return err
	}
	fmt.Fprintln(a.Out)
	failures := a.list("TIMES", "WHAT FAILED")
	for _, f := range r.Failures {
		if err := failures.Add(f, f.Count, f.Text); err != nil {
			return err
		}
	}
	return failures.Close()
}

// number prints four significant digits, and large ones in full.
func number(x float64) string {
	if x >= 1000 || x == float64(int64(x)) {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return strconv.FormatFloat(x, 'g', 4, 64)
}
