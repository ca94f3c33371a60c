package sqlbase

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/farspeak/farspeak/internal/identity"
)

// Whatever the order in which they come, the smallest are kept, and no more than twice the limit.
func TestSmallest(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, limit := range []int{0, 1, 2, 7, 100, 1000} {
		for _, n := range []int{0, 1, 2, 13, 14, 15, 700} {
			s := smallest{limit: limit}
			var all []identity.MessageID
			for range n {
				id := identity.MessageID{0: byte(random.Uint32()), 31: byte(random.Uint32())}
				all = append(all, id)
				s.add(id)
				if len(s.ids) > 2*limit {
					t.Fatalf("%d of %d kept", len(s.ids), limit)
				}
			}
			slices.SortFunc(all, compareMessages)
			if got, want := s.inOrder(), all[:min(n, limit)]; !slices.Equal(got, want) {
				t.Errorf("limit %d of %d: %v, want %v", limit, n, got, want)
			}
		}
	}
}
