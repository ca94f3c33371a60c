package services_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/farspeak/farspeak/internal/services"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// needs answers after a time; a call that is cut off before has been worked on for nothing.
func needs(d time.Duration) func(context.Context, *fspb.Message) error {
	return func(ctx context.Context, _ *fspb.Message) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// takenIn fails the test unless all messages were taken, each within so many tries.
func (s *fakeService) takenIn(t *testing.T, messages, tries int) {
	t.Helper()
	if n := s.takenOnce(t); n != messages {
		t.Errorf("%d of %d messages completed", n, messages)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	tried := map[string]int{}
	for _, id := range s.order {
		if tried[id]++; tried[id] == tries+1 {
			t.Errorf("message %s was worked on more than %d times", id, tries)
		}
	}
}

func TestServiceSlowerThanClientsCanWait(t *testing.T) { // G-20
	synctest.Test(t, func(t *testing.T) {
		st, reg := newFakeStore(), prometheus.NewRegistry()
		s := newFakeService(needs(services.DefaultServiceBudget + 2*time.Second))
		m := newManager(t, services.Config{Store: st, Services: one("S", s), Registerer: reg})
		running(t, m)
		const messages = 300
		for n := range messages {
			b := services.Batch{ClientID: clientA, Messages: []*fspb.Message{message(clientA, "S", n)}}
			go func() {
				if err := m.Ingest(t.Context(), b); err != nil {
					t.Error(err)
				}
			}()
			pass(time.Second)
			if n < 60 {
				continue // nothing is known of the service yet: its circuit may open, and a probe closes it
			}
			expect(t, reg, `farspeak_service_circuit_open{service="S"} 0
farspeak_service_circuit_open{service="system"} 0`, "farspeak_service_circuit_open")
		}
		pass(time.Minute)
		s.takenIn(t, messages, 2)
		if waiting, dead := st.counts(); waiting != 0 || dead != 0 {
			t.Errorf("backlog %d, dead letters %d", waiting, dead)
		}
	})
}

func TestBackendSlowerThanClientsCanWait(t *testing.T) { // G-20
	b := newBackend(func(context.Context, *fspb.Message) error { time.Sleep(300 * time.Millisecond); return nil })
	b.serve(t)
	st := newFakeStore()
	m := newManager(t, services.Config{
		Store: st, Services: b.spec(0), ServiceBudget: 100 * time.Millisecond,
		CircuitOpenFor: 50 * time.Millisecond, BacklogPoll: 20 * time.Millisecond,
	})
	running(t, m)
	if err := m.Ingest(t.Context(), batchOf("S", 40)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "empty backlog", func() bool { waiting, _ := st.counts(); return waiting == 0 })
	// The backend finishes also what was cut off, so that it has worked on each message up to twice.
	if n := b.service.tried(); n > 80 {
		t.Errorf("40 messages were worked on %d times, want once for the client and once for the backlog", n)
	}
}

func TestDeadServiceIsNotTakenForSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		s := newFakeService(nil)
		m := newManager(t, services.Config{Store: st, Services: one("S", s)})
		running(t, m)
		if err := m.Ingest(t.Context(), batchOf("S", 1)); err != nil || s.takenOnce(t) != 1 {
			t.Fatal(err, s.tried())
		}
		s.become(func(ctx context.Context, _ *fspb.Message) error { <-ctx.Done(); return ctx.Err() })
		pass(services.DefaultBacklogBudget)
		if err := m.Ingest(t.Context(), batchOf("S", 20)); err != nil { // nothing was answered for long: opens the circuit
			t.Fatal(err)
		}
		tried := s.tried()
		pass(10 * time.Second)
		for n := range 1000 {
			b := services.Batch{ClientID: clientA, Messages: []*fspb.Message{message(clientA, "S", 100+n)}}
			if err := m.Ingest(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		if n := s.tried() - tried; n > 3 {
			t.Errorf("a dead service was called %d times more", n)
		}
		s.become(nil)
		pass(2 * time.Minute)
		if waiting, _ := st.counts(); waiting != 0 {
			t.Errorf("backlog of %d after the service came back", waiting)
		}
	})
}

func TestProbesOfASlowServiceHaveTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		s := newFakeService(func(ctx context.Context, _ *fspb.Message) error { <-ctx.Done(); return ctx.Err() })
		m := newManager(t, services.Config{Store: st, Services: one("S", s)})
		running(t, m)
		if err := m.Ingest(t.Context(), batchOf("S", 5)); err != nil { // opens the circuit
			t.Fatal(err)
		}
		s.become(needs(services.DefaultServiceBudget + time.Second))
		// Clients press on: were they let through, each probe would be cut off too early.
		for n := range 300 {
			b := services.Batch{ClientID: clientA, Messages: []*fspb.Message{message(clientA, "S", 100+n)}}
			go func() {
				if err := m.Ingest(t.Context(), b); err != nil {
					t.Error(err)
				}
			}()
			pass(200 * time.Millisecond)
		}
		if n := s.takenOnce(t); n < 50 {
			t.Errorf("%d messages completed in a minute, want most of what the backlog could hold", n)
		}
		pass(3 * time.Minute)
		if waiting, _ := st.counts(); waiting != 0 {
			t.Errorf("backlog of %d", waiting)
		}
	})
}
