// Package measure holds the instruments of load tests: distributions of latencies, sets of sequence numbers, what
// processes use, and what a database counts.
package measure

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Bounds of what is recorded. Values beyond are recorded as the bound.
const (
	shortest = time.Microsecond
	longest  = time.Hour
	digits   = 3
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

// Distribution is a finished collection. In JSON it is compressed. A nil one is empty.
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

// MarshalText encodes the distribution.
func (d *Distribution) MarshalText() ([]byte, error) { return d.histogram.EncodeV2() }

// UnmarshalText decodes it.
func (d *Distribution) UnmarshalText(text []byte) (err error) {
	d.histogram, err = hdrhistogram.Decode(text)
	return err
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
