package services_test

import (
	"context"
	"sync"
	"testing"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// fakeService answers as the test says and counts.
type fakeService struct {
	mu      sync.Mutex
	answer  func(ctx context.Context, m *fspb.Message) error
	order   []string       // source message IDs, in order of arrival
	taken   map[string]int // how often each was taken
	running int
	most    int // at once
	closed  int
}

func newFakeService(answer func(context.Context, *fspb.Message) error) *fakeService {
	return &fakeService{answer: answer, taken: map[string]int{}}
}

func (s *fakeService) Process(ctx context.Context, m *fspb.Message) error {
	s.mu.Lock()
	s.running++
	s.most = max(s.most, s.running)
	s.order = append(s.order, string(m.SourceMessageId))
	answer := s.answer
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.running--
		s.mu.Unlock()
	}()
	if answer != nil {
		if err := answer(ctx, m); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken[string(m.SourceMessageId)]++
	return nil
}

func (s *fakeService) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	return nil
}

func (s *fakeService) become(answer func(context.Context, *fspb.Message) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// tried returns how often Process was called.
func (s *fakeService) tried() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.order)
}

// takenOnce returns how many messages were taken; it fails the test when one was taken more than once.
func (s *fakeService) takenOnce(t *testing.T) int {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, n := range s.taken {
		if n != 1 {
			t.Errorf("message %s was taken %d times", id, n)
		}
	}
	return len(s.taken)
}
