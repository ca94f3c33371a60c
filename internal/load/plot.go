package load

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"

	"github.com/wcharczuk/go-chart/v2"
)

// Size of one panel of a chart, in pixels.
const (
	panelWidth  = 1000
	panelHeight = 360
)

// Plot draws a run into an SVG file, one panel below the other: latencies over time, rate and sessions over time, memory
// over sessions. What a run has not is left out.
func Plot(path string, r *Result) error {
	var panels [][]byte
	for _, c := range []*chart.Chart{latencyPanel(r), ratePanel(r), memoryPanel(r)} {
		if c == nil {
			continue
		}
		var svg bytes.Buffer
		if err := c.Render(chart.SVG, &svg); err != nil {
			return fmt.Errorf("plot: %w", err)
		}
		panels = append(panels, svg.Bytes())
	}
	if len(panels) == 0 {
		return errors.New("plot: the run was too short to draw")
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d">`+"\n", panelWidth, panelHeight*len(panels))
	for i, panel := range panels {
		fmt.Fprintf(&out, `<svg y="%d" width="%d" height="%d">%s</svg>`+"\n", i*panelHeight, panelWidth, panelHeight, panel)
	}
	out.WriteString("</svg>\n")
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		return fmt.Errorf("plot: %w", err)
	}
	return nil
}

// line is a series under construction.
type line struct {
	name string
	x, y []float64
}

func (l *line) add(x, y float64) { l.x, l.y = append(l.x, x), append(l.y, y) }

// lines collects series by name.
type lines map[string]*line

func (l lines) add(name string, x, y float64) {
	if l[name] == nil {
		l[name] = &line{name: name}
	}
	l[name].add(x, y)
}

// panel makes a chart of what has at least two points; nil when nothing has.
func (l lines) panel(title, x, y string) *chart.Chart {
	c := &chart.Chart{
		Title: title, Width: panelWidth, Height: panelHeight,
		Background: chart.Style{Padding: chart.Box{Top: 50, Left: 20, Right: 20, Bottom: 10}},
		XAxis:      chart.XAxis{Name: x, ValueFormatter: plainNumber},
		YAxis:      chart.YAxis{Name: y, ValueFormatter: plainNumber},
		// There is one axis of values; the other one would show ticks of nothing.
		YAxisSecondary: chart.YAxis{Style: chart.Hidden()},
	}
	widest := 0.0
	for _, s := range l {
		widest = max(widest, slices.Max(s.x))
	}
	c.XAxis.Range = &chart.ContinuousRange{Min: 0, Max: max(widest, 1)}
	for _, name := range slices.Sorted(maps.Keys(l)) {
		if s := l[name]; len(s.x) > 1 {
			c.Series = append(c.Series, chart.ContinuousSeries{Name: s.name, XValues: s.x, YValues: s.y})
		}
	}
	if len(c.Series) == 0 {
		return nil
	}
	c.Elements = []chart.Renderable{chart.LegendThin(c)}
	return c
}

func plainNumber(v any) string {
	x, _ := v.(float64)
	if digits := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(x)))); x != 0 && digits > 0 {
		x = math.Round(x*digits) / digits
	}
	return strconv.FormatFloat(x, 'f', -1, 64)
}

func latencyPanel(r *Result) *chart.Chart {
	l := make(lines)
	for _, p := range r.Series {
		for name, spot := range p.Latencies {
			l.add(name+" p50", p.Seconds, spot.P50)
			l.add(name+" p99", p.Seconds, spot.P99)
		}
	}
	c := l.panel("Latency over time", "seconds", "ms")
	if c == nil {
		return nil
	}
	lowest, highest := math.Inf(1), 0.0
	for _, s := range l {
		lowest, highest = min(lowest, slices.Min(s.y)), max(highest, slices.Max(s.y))
	}
	logarithmic(&c.YAxis, lowest, highest)
	return c
}

// logarithmic gives an axis powers of ten.
func logarithmic(axis *chart.YAxis, lowest, highest float64) {
	from := math.Floor(math.Log10(max(lowest, 1e-3)))
	to := max(from+1, math.Ceil(math.Log10(max(highest, 1e-3))))
	axis.Range = &chart.LogarithmicRange{Min: math.Pow(10, from), Max: math.Pow(10, to)}
	for power := from; power <= to; power++ {
		axis.Ticks = append(axis.Ticks, chart.Tick{Value: math.Pow(10, power), Label: plainNumber(math.Pow(10, power))})
	}
}

func ratePanel(r *Result) *chart.Chart {
	l := make(lines)
	for _, p := range r.Series {
		l.add("messages/s", p.Seconds, p.Rate)
		l.add("sessions", p.Seconds, float64(p.Connected))
	}
	return l.panel("Messages and sessions over time", "seconds", "")
}

func memoryPanel(r *Result) *chart.Chart {
	points := slices.SortedFunc(slices.Values(r.Series), func(a, b Point) int { return cmp.Compare(a.Connected, b.Connected) })
	if len(points) == 0 || points[0].Connected == points[len(points)-1].Connected {
		return nil
	}
	l := make(lines)
	for _, p := range points {
		for name, bytes := range p.Resident {
			l.add(name, float64(p.Connected), float64(bytes)/(1<<20))
		}
	}
	return l.panel("Memory over sessions", "sessions", "MiB")
}
