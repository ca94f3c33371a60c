package sqlbase

import (
	"slices"

	"github.com/farspeak/farspeak/internal/identity"
)

// smallest keeps the smallest of many IDs, up to a limit. It holds twice as many at most.
type smallest struct {
	limit int
	ids   []identity.MessageID
	full  bool // the first limit of ids are in order, and nothing after the last of them counts any more
}

func (s *smallest) add(id identity.MessageID) {
	if s.limit < 1 || s.full && compareMessages(id, s.ids[s.limit-1]) >= 0 {
		return
	}
	s.ids = append(s.ids, id)
	if len(s.ids) >= 2*s.limit {
		s.settle()
	}
}

func (s *smallest) settle() {
	slices.SortFunc(s.ids, compareMessages)
	s.ids = s.ids[:min(len(s.ids), s.limit)]
	s.full = len(s.ids) == s.limit
}

// inOrder returns what was kept.
func (s *smallest) inOrder() []identity.MessageID {
	s.settle()
	return s.ids
}
