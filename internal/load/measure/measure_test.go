package measure_test

import (
	"encoding/json"
	"math"
	"os"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/load/measure"
)

func TestLatencies(t *testing.T) {
	l := measure.NewLatencies()
	if l.Take() != nil {
		t.Error("nothing is a distribution")
	}
	for i := range 1000 {
		l.Record(time.Duration(i+1)*time.Millisecond, 1)
	}
	first := l.Take()
	l.Record(10*time.Hour, 2) // beyond the bound
	text, err := json.Marshal([]*measure.Distribution{first, nil, l.Take()})
	if err != nil {
		t.Fatal(err)
	}
	var read []*measure.Distribution
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	merged := read[1].Merge(read[0]).Merge(read[2]).Merge(nil)
	s := merged.Summary()
	if s.Count != 1002 || math.Abs(s.P50-500) > 4 || math.Abs(s.P99-993) > 8 || math.Abs(s.Max-3.6e6) > 28_000 {
		t.Errorf("summary is %+v", s)
	}
	if n := merged.Above(990 * time.Millisecond); n < 11 || n > 13 {
		t.Errorf("%d latencies are above 990 ms", n)
	}
	if first.Count() != 1000 {
		t.Error("merging changed what was merged")
	}
}

func TestMalformedDistributions(t *testing.T) {
	for _, text := range []string{"!", "[]", `"1"`, `{"x":1}`, `{"-1":1}`, `{"1000000":1}`, `{"1":-1}`, `{"1":0.5}`} {
		var d measure.Distribution
		if err := json.Unmarshal([]byte(text), &d); err == nil {
			t.Errorf("%q was taken: %+v", text, d.Summary())
		}
	}
}

func TestSeen(t *testing.T) {
	s := measure.NewSeen()
	for _, n := range []uint64{0, 63, 64, 1000} {
		if !s.Add(n) {
			t.Errorf("%d was there before it was added", n)
		}
	}
	if s.Add(64) {
		t.Error("64 was added twice")
	}
	data, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	read := measure.NewSeen()
	if err := read.UnmarshalBinary(data); err != nil {
		t.Fatal(err)
	}
	read.Add(5)
	if s.CountMissing(read) != 0 || read.CountMissing(s) != 1 {
		t.Errorf("missing are %d and %d, want 0 and 1", s.CountMissing(read), read.CountMissing(s))
	}
	s.Merge(read)
	if s.Count() != 5 || s.CountBelow(64) != 3 || s.CountBelow(65) != 4 {
		t.Errorf("counts are %d, %d, %d", s.Count(), s.CountBelow(64), s.CountBelow(65))
	}
	if err := read.UnmarshalBinary([]byte("nonsense")); err == nil {
		t.Error("nonsense was read")
	}
}

func TestMachine(t *testing.T) {
	before, err := measure.ReadMachine()
	if err != nil || before.Busy <= 0 || before.Stolen < 0 {
		t.Fatalf("machine was busy for %v, and robbed of %v: %v", before.Busy, before.Stolen, err)
	}
	for u, err := measure.ReadUsage(os.Getpid()); ; {
		now, again := measure.ReadUsage(os.Getpid())
		if err != nil || again != nil {
			t.Fatal(err, again)
		}
		if now.CPU-u.CPU >= 50*time.Millisecond { // several of the kernel's ticks
			break
		}
	}
	if after, err := measure.ReadMachine(); err != nil || after.Busy <= before.Busy {
		t.Errorf("machine was busy for %v before the work and %v after it: %v", before.Busy, after.Busy, err)
	}
}

func TestUsage(t *testing.T) {
	u, err := measure.ReadUsage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if u.Resident < 1<<20 || u.Resident > 1<<40 {
		t.Errorf("this process occupies %d bytes", u.Resident)
	}
	if _, err := measure.ReadUsage(math.MaxInt32); err == nil {
		t.Error("a process that does not exist has a usage")
	}
}
