// Package measure holds the instruments of load tests: distributions of latencies, sets of sequence numbers, what
// processes use, and what a database counts.
package measure

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Bounds of what is recorded. Values beyond are recorded as the bound.
const (
	shortest = time.Microsecond
	longest  = time.Hour
	// digits are those of a value that are right, which is to within 0.8 %. A third one makes each report eight times as
	// large, and what it costs was to be seen in the latencies.
	digits = 2
)

// Latencies collects latencies. It is safe for concurrent use.
type Latencies struct {
	mu        sync.Mutex
	histogram *hdrhistogram.Histogram // guarded by mu; nil while there is nothing in it
}

// NewLatencies returns an empty collection.
func NewLatencies() *Latencies { return &Latencies{} }

// Record adds count latencies of d.
func (l *Latencies) Record(d time.Duration, count int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.histogram == nil {
		l.histogram = newHistogram()
	}
	// It fails on values outside of the bounds, of which there are none.
	_ = l.histogram.RecordValues(int64(min(max(d, shortest), longest)/shortest), count)
}

// Take returns what gathered since the last call, nil when it is nothing.
func (l *Latencies) Take() *Distribution {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.histogram
	l.histogram = nil
	if taken == nil {
		return nil
	}
	return &Distribution{taken}
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(longest/shortest), digits)
}

// Distribution is a finished collection. A nil one is empty.
type Distribution struct{ histogram *hdrhistogram.Histogram }

// Merge returns the latencies of both; the other one may be used up.
func (d *Distribution) Merge(other *Distribution) *Distribution {
	switch {
	case other == nil:
		return d
	case d == nil:
		return &Distribution{other.histogram.Clone()}
	}
	d.histogram.Merge(other.histogram)
	return d
}

// MarshalJSON encodes the distribution: the heights of the bars that are not empty, by their numbers. The histogram library's own
// encoding makes a compressor each time, which costs more than all else in a report.
func (d *Distribution) MarshalJSON() ([]byte, error) {
	bars := make(map[int]int64)
	for i, height := range d.histogram.Export().Counts {
		if height != 0 {
			bars[i] = height
		}
	}
	return json.Marshal(bars)
}

// errMalformed says that a text is no distribution.
var errMalformed = errors.New("malformed distribution of latencies")

// UnmarshalJSON decodes it.
func (d *Distribution) UnmarshalJSON(text []byte) error {
	var bars map[int]int64
	if err := json.Unmarshal(text, &bars); err != nil {
		return fmt.Errorf("%w: %w", errMalformed, err)
	}
	snapshot := newHistogram().Export()
	for i, height := range bars {
		if i < 0 || i >= len(snapshot.Counts) || height < 0 {
			return errMalformed
		}
		snapshot.Counts[i] = height
	}
	d.histogram = hdrhistogram.Import(snapshot)
	return nil
}

// Summary is what is told of a distribution, in milliseconds.
type Summary struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean_ms"`
	P50   float64 `json:"p50_ms"`
	P90   float64 `json:"p90_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p99_9_ms"`
	Max   float64 `json:"max_ms"`
}

// Count is how many latencies there are.
func (d *Distribution) Count() int64 {
	if d == nil {
		return 0
	}
	return d.histogram.TotalCount()
}

// At is the latency below which a part of all are, in percent.
func (d *Distribution) At(percent float64) time.Duration {
	if d == nil {
		return 0
	}
	return time.Duration(d.histogram.ValueAtPercentile(percent)) * shortest
}

// Above is how many latencies are longer than d.
func (d *Distribution) Above(limit time.Duration) int64 {
	if d == nil {
		return 0
	}
	var above int64
	for _, bar := range d.histogram.Distribution() {
		if time.Duration(bar.From)*shortest > limit {
			above += bar.Count
		}
	}
	return above
}

// Summary tells the usual percentiles.
func (d *Distribution) Summary() Summary {
	if d == nil {
		return Summary{}
	}
	h := d.histogram
	return Summary{
		Count: h.TotalCount(), Mean: h.Mean() / 1000,
		P50: milliseconds(d.At(50)), P90: milliseconds(d.At(90)), P99: milliseconds(d.At(99)), P999: milliseconds(d.At(99.9)),
		Max: milliseconds(time.Duration(h.Max()) * shortest),
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
