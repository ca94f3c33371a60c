package measure_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/load/measure"
)

// BenchmarkReport is what a report costs both of its ends: latencies are taken, encoded, decoded, and added to two sums.
func BenchmarkReport(b *testing.B) {
	l := measure.NewLatencies()
	var interval, total *measure.Distribution
	b.ReportAllocs()
	for b.Loop() {
		for i := range 20 {
			l.Record(time.Duration(i)*time.Millisecond, 1)
		}
		text, err := json.Marshal(l.Take())
		if err != nil {
			b.Fatal(err)
		}
		var d measure.Distribution
		if err := json.Unmarshal(text, &d); err != nil {
			b.Fatal(err)
		}
		interval, total = interval.Merge(&d), total.Merge(&d)
	}
}
