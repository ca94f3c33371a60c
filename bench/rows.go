package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/farspeak/farspeak/internal/load"
)

// row is one figure beside what it is held against.
type row struct {
	Part  string  `json:"part"`
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
	// Bar is what the figure has to reach: at least, or with AtMost at most. Nil: it is only told.
	Bar    *float64 `json:"bar,omitempty"`
	AtMost bool     `json:"at_most,omitempty"`
	// Floor is what the machine does without a fabric, Ratio how far the figure is from it, above 1 in the wrong direction.
	Floor     float64 `json:"floor,omitempty"`
	FloorName string  `json:"floor_name,omitempty"`
	Ratio     float64 `json:"ratio,omitempty"`
}

// atMost and atLeast are bars.
func atMost(x float64) limit  { return limit{x, true} }
func atLeast(x float64) limit { return limit{x, false} }

type limit struct {
	value  float64
	atMost bool
}

// floor is one of the floors, with its name.
type floor struct {
	name  string
	value float64
}

// figure adds a figure of a result, by its name there.
func (b *bench) figure(part string, r *load.Result, name, text, unit string, extra ...any) {
	value, ok := r.Figure(name)
	if !ok {
		return
	}
	b.add(part, text, value, unit, extra...)
}

// add adds a figure; extra are its limit and its floor, if it has them.
func (b *bench) add(part, text string, value float64, unit string, extra ...any) {
	r := row{Part: part, Name: text, Value: value, Unit: unit}
	higherIsBetter := strings.HasSuffix(unit, "/s")
	for _, e := range extra {
		switch e := e.(type) {
		case limit:
			r.Bar, r.AtMost = &e.value, e.atMost
		case floor:
			r.Floor, r.FloorName = e.value, e.name
		}
	}
	switch {
	case r.Floor == 0 || value == 0:
	case higherIsBetter:
		r.Ratio = r.Floor / value
	default:
		r.Ratio = value / r.Floor
	}
	b.rows = append(b.rows, r)
}

// met says whether the figure reaches its bar.
func (r row) met() bool {
	return r.AtMost && r.Value <= *r.Bar || !r.AtMost && r.Value >= *r.Bar
}

// printTable prints all figures.
func printTable(out io.Writer, rows []row) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PART\tFIGURE\tVALUE\tBAR\tMET\tFLOOR\tRATIO\tFLOOR IS")
	for _, r := range rows {
		bar, met, floor, ratio := "", "", "", ""
		if r.Bar != nil {
			bar, met = "≥ "+number(*r.Bar), "no"
			if r.AtMost {
				bar = "≤ " + number(*r.Bar)
			}
			if r.met() {
				met = "yes"
			}
		}
		if r.Floor != 0 {
			floor, ratio = number(r.Floor), strconv.FormatFloat(r.Ratio, 'f', 1, 64)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Part, r.Name, strings.TrimSpace(number(r.Value)+" "+r.Unit), bar, met, floor, ratio, r.FloorName)
	}
	w.Flush()
}

// number has three significant digits, and those above a thousand none behind the point.
func number(x float64) string {
	if x >= 1000 || x == float64(int64(x)) {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}
