package wire_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/farspeak/farspeak/internal/wire"
)

type grant = map[string]uint64

// wrapped is a decrease as it looks in an unsigned field.
func wrapped(n uint64) uint64 { return -n }

func startTokens(granted grant) *wire.Tokens {
	var tokens wire.Tokens
	tokens.Start(granted)
	return &tokens
}

func TestStartGrantsAbsolutely(t *testing.T) {
	tokens := startTokens(grant{"system": 100, "echo": 2, "full": 0})
	names, limited := tokens.Services()
	if !limited || !slices.Equal(names, []string{"echo", "system"}) {
		t.Errorf("services %q, limited %v", names, limited)
	}
	for service, want := range (grant{"system": 100, "echo": 2, "full": 0, "unknown": 0}) {
		if got := tokens.Allowance(service); got != want {
			t.Errorf("allowance of %s is %d, want %d", service, got, want)
		}
		if got := tokens.Take(service); got != (want > 0) {
			t.Errorf("Take(%s) = %v", service, got)
		}
	}
	if !tokens.Take("echo") || tokens.Take("echo") {
		t.Error("echo takes other than two messages")
	}
	tokens.Start(grant{"echo": 1})
	if tokens.Allowance("system") != 0 || tokens.Allowance("echo") != 1 {
		t.Error("a second Start does not begin anew")
	}
}

func TestEmptyFirstMapIsUnlimitedForLife(t *testing.T) {
	for _, first := range []grant{nil, {}} {
		tokens := startTokens(first)
		if tokens.Add(grant{"echo": 1}) {
			t.Error("Add raised what is unlimited")
		}
		names, limited := tokens.Services()
		if names != nil || limited {
			t.Errorf("services %q, limited %v", names, limited)
		}
		tokens.Return("echo")
		for range 1000 {
			if !tokens.Take("echo") || !tokens.TakeFor("system", "Die") {
				t.Fatal("no token where none is needed")
			}
		}
		if tokens.Allowance("anything") != math.MaxUint64 {
			t.Error("unlimited has a limit")
		}
	}
}

func TestZeroTokensGrantNothing(t *testing.T) {
	var tokens wire.Tokens
	names, limited := tokens.Services()
	if len(names) != 0 || !limited || tokens.Take("system") {
		t.Errorf("services %q, limited %v", names, limited)
	}
}

func TestTokenArithmetic(t *testing.T) { // G-04, G-24
	for _, test := range []struct {
		before, increment, want uint64
		raised                  bool
	}{
		{0, 0, 0, false},
		{0, 1, 1, true},
		{5, 0, 5, false},
		{5, 7, 12, true},
		{math.MaxUint64, 1, math.MaxUint64, false},
		{math.MaxUint64 - 1, 5, math.MaxUint64, true},
		{math.MaxUint64, 1 << 63, math.MaxUint64, false},
		{1, 1 << 63, 1<<63 + 1, true}, // not above: an increase
		{5, wrapped(3), 2, false},
		{5, wrapped(5), 0, false},
		{5, wrapped(6), 0, false},
		{0, wrapped(1), 0, false},
		{5, 1<<63 + 1, 0, false},
		{math.MaxUint64, 1<<63 + 1, 1 << 63, false},
		{math.MaxUint64, wrapped(1), math.MaxUint64 - 1, false},
	} {
		tokens := startTokens(grant{"echo": test.before})
		if raised := tokens.Add(grant{"echo": test.increment}); raised != test.raised {
			t.Errorf("%d + %d: raised %v", test.before, test.increment, raised)
		}
		if got := tokens.Allowance("echo"); got != test.want {
			t.Errorf("%d + %d = %d, want %d", test.before, test.increment, got, test.want)
		}
	}
}

// A restarted service returns the messages of its whole former life as a wrapped number, while messages are on their way
// that were allowed before. // G-04, G-24
func TestRestartedService(t *testing.T) {
	tokens := startTokens(grant{"echo": 3})
	allowed := tokens.Allowance("echo")
	tokens.Add(grant{"echo": wrapped(70)})
	for range allowed {
		if tokens.Take("echo") {
			t.Fatal("a token that is gone was taken")
		}
	}
	if !tokens.Add(grant{"echo": 2}) || tokens.Allowance("echo") != 2 {
		t.Errorf("%d tokens after the next return, want 2", tokens.Allowance("echo"))
	}
}

func TestAddKnowsNewServices(t *testing.T) {
	tokens := startTokens(grant{"system": 0})
	if !tokens.Add(grant{"late": 100}) || tokens.Allowance("late") != 100 {
		t.Error("a service that appears later gets nothing")
	}
	if tokens.Add(nil) || tokens.Add(grant{}) || tokens.Allowance("late") != 100 {
		t.Error("an empty map changes something")
	}
}

func TestReturn(t *testing.T) {
	tokens := startTokens(grant{"echo": 1})
	tokens.Take("echo")
	tokens.Return("echo")
	tokens.Return("unknown")
	if tokens.Allowance("echo") != 1 || tokens.Allowance("unknown") != 0 {
		t.Error("Return does not undo Take, or does more")
	}
}

func TestDieSpendsNoToken(t *testing.T) {
	tokens := startTokens(grant{"system": 1, "echo": 1})
	for range 3 {
		if !tokens.TakeFor("system", "Die") {
			t.Fatal("Die refused")
		}
	}
	if !tokens.TakeFor("echo", "Die") || tokens.TakeFor("echo", "Die") {
		t.Error("Die of another service is free")
	}
	if !tokens.TakeFor("system", "RekeyRequest") || tokens.TakeFor("system", "Die") {
		t.Error("Die needs no token")
	}
}

// What a record of millions of services leaves behind is bounded.
func TestTokenMemoryIsBounded(t *testing.T) {
	hostile := make(grant)
	for i := range 100000 {
		hostile[fmt.Sprintf("service %d", i)] = 1
	}
	hostile[strings.Repeat("x", 1<<20)] = 1
	tokens := startTokens(hostile)
	tokens.Add(hostile)
	names, _ := tokens.Services()
	size := 0
	for _, name := range names {
		size += len(name) + 32
	}
	if len(names) == 0 || size > 32<<10 {
		t.Errorf("%d services of %d bytes are remembered", len(names), size)
	}
	if !slices.IsSorted(names) || len(slices.Compact(names)) != len(names) {
		t.Error("services are out of order or double")
	}
	honest := make(grant)
	for i := range 300 {
		honest[fmt.Sprintf("service %d", i)] = uint64(i + 1)
	}
	names, _ = startTokens(honest).Services()
	if want := slices.Sorted(maps.Keys(honest)); !slices.Equal(names, want) {
		t.Errorf("%d of %d honest services are remembered", len(names), len(want))
	}
}
