package heap_test

import (
	"runtime"
	"runtime/metrics"
	"testing"

	"github.com/farspeak/farspeak/internal/load/heap"
)

// sink keeps what a test allocates from being left out by the compiler.
var sink []byte

// collections is how many there are while 24 MiB of garbage are made.
func collections() uint64 {
	runtime.GC()
	count := []metrics.Sample{{Name: "/gc/cycles/automatic:gc-cycles"}}
	metrics.Read(count)
	before := count[0].Value.Uint64()
	for range 24 * 16 {
		sink = make([]byte, 1<<16)
	}
	metrics.Read(count)
	return count[0].Value.Uint64() - before
}

func TestFloor(t *testing.T) {
	t.Setenv("GOGC", "")
	release := heap.Floor()
	with := collections()
	release()
	if without := collections(); with != 0 || without == 0 {
		t.Errorf("%d collections with a floor and %d without", with, without)
	}
}

func TestConfiguredCollectorStays(t *testing.T) {
	t.Setenv("GOGC", "100")
	release := heap.Floor()
	defer release()
	if collections() == 0 {
		t.Error("no collection where GOGC asks for them")
	}
}
