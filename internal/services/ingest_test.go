package services_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/services"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

func idOf(m *fspb.Message) identity.MessageID { return identity.MessageID(m.GetMessageId()) }

func TestOutcomes(t *testing.T) {
	long := strings.Repeat("é", 600) // 1200 bytes
	for _, tc := range []struct {
		name     string
		answer   error
		keep     bool
		waiting  int // in the backlog
		attempts int
		dead     int
		results  int
		reason   string
		touched  int // calls of the store
	}{
		{name: "taken", touched: 0},
		{name: "taken, result kept", keep: true, results: 1, touched: 1},
		{name: "failed for now", answer: errFlaky, waiting: 1, attempts: 1, touched: 1},
		{name: "unavailable", answer: services.Unavailable(errFlaky), waiting: 1, attempts: 1, touched: 1},
		{name: "failed for good", answer: services.Permanent(errNever), dead: 1, results: 1, reason: errNever.Error(), touched: 1},
		{name: "wrapped", answer: fmt.Errorf("call: %w", services.Permanent(errNever)), dead: 1, results: 1, reason: "call: " + errNever.Error(), touched: 1},
		{name: "long reason", answer: services.Permanent(errors.New(long)), dead: 1, results: 1, reason: long[:896] + "...", touched: 1},
		{name: "odd reason", answer: services.Permanent(errors.New("a\xffb")), dead: 1, results: 1, reason: "a\uFFFDb", touched: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newFakeStore()
				s := newFakeService(func(context.Context, *fspb.Message) error { return tc.answer })
				m := newManager(t, services.Config{Store: st, Services: one("S", s), KeepResults: tc.keep})
				b := batchOf("S", 1)
				if err := m.Ingest(t.Context(), b); err != nil {
					t.Fatal(err)
				}
				waiting, dead := st.counts()
				if waiting != tc.waiting || dead != tc.dead || len(st.results) != tc.results || st.touched() != tc.touched {
					t.Errorf("backlog %d, dead %d, results %d, store calls %d; want %d, %d, %d, %d",
						waiting, dead, len(st.results), st.touched(), tc.waiting, tc.dead, tc.results, tc.touched)
				}
				id := idOf(b.Messages[0])
				if tc.waiting > 0 && st.rows[id].Attempts != tc.attempts {
					t.Errorf("attempts %d, want %d", st.rows[id].Attempts, tc.attempts)
				}
				if tc.dead > 0 {
					d := st.dead[id]
					if d.Reason != tc.reason || !utf8.ValidString(d.Reason) {
						t.Errorf("reason %q (%d bytes), want %q", d.Reason, len(d.Reason), tc.reason)
					}
					if d.Message.GetData() == nil {
						t.Error("a dead letter lost its payload") // G-13
					}
				}
			})
		})
	}
}

func TestUnknownService(t *testing.T) {
	st := newFakeStore()
	s := newFakeService(nil)
	m := newManager(t, services.Config{Store: st, Services: one("S", s)})
	longName := strings.Repeat("x", 3000)
	b := services.Batch{ClientID: clientA, Messages: []*fspb.Message{
		message(clientA, "Nowhere", 1), message(clientA, "S", 2), message(clientA, longName, 3),
	}}
	if err := m.Ingest(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if n := s.takenOnce(t); n != 1 {
		t.Errorf("the known service took %d messages, want 1", n)
	}
	if got := st.dead[idOf(b.Messages[0])]; got.Reason != `unknown service "Nowhere"` || got.Service != "Nowhere" || !got.Failed {
		t.Errorf("result %+v", got)
	}
	if got := st.dead[idOf(b.Messages[0])].Message; got.GetData() != nil || got.GetSource().GetServiceName() != "Agent" {
		t.Errorf("dead letter %v, want who sent it, and no payload", got)
	}
	got := st.dead[idOf(b.Messages[2])]
	if len(got.Service) > store.MaxName || len(got.Reason) > 900 {
		t.Errorf("service of %d bytes, reason of %d", len(got.Service), len(got.Reason))
	}
}

func TestStoreDownIsNeverAcknowledged(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer error
		keep   bool
	}{
		{"failed for now", errFlaky, false},
		{"failed for good", services.Permanent(errNever), false},
		{"result wanted", nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := newFakeStore()
			st.down = true
			s := newFakeService(func(context.Context, *fspb.Message) error { return tc.answer })
			m := newManager(t, services.Config{Store: st, Services: one("S", s), KeepResults: tc.keep})
			if err := m.Ingest(t.Context(), batchOf("S", 3)); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("Ingest = %v, want ErrUnavailable", err)
			}
		})
	}
}

func TestOneCommitForWhatFailsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		st.slow["AddBacklog"] = time.Millisecond
		s := newFakeService(func(context.Context, *fspb.Message) error { return errFlaky })
		m := newManager(t, services.Config{Store: st, Services: one("S", s)})
		if err := m.Ingest(t.Context(), batchOf("S", 100)); err != nil {
			t.Fatal(err)
		}
		if waiting, _ := st.counts(); waiting != 100 {
			t.Errorf("backlog of %d, want 100", waiting)
		}
		if n := st.called("AddBacklog"); n > 2 {
			t.Errorf("%d commits for 100 messages", n)
		}
	})
}

func TestPanicIsOneDeadLetter(t *testing.T) { // G-01
	st := newFakeStore()
	s := newFakeService(func(_ context.Context, m *fspb.Message) error {
		if strings.HasSuffix(string(m.SourceMessageId), "-1") {
			panic("boom")
		}
		return nil
	})
	m := newManager(t, services.Config{Store: st, Services: one("S", s)})
	b := batchOf("S", 3)
	if err := m.Ingest(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if n := s.takenOnce(t); n != 2 {
		t.Errorf("%d messages taken, want the 2 neighbours", n)
	}
	if got := st.dead[idOf(b.Messages[1])].Reason; got != "panic in service" {
		t.Errorf("reason %q", got)
	}
}

func TestOverloadWaitsThenBacklogs(t *testing.T) {
	for _, tc := range []struct {
		name           string
		takes          time.Duration
		taken, backlog int
		after          time.Duration
	}{
		{"short enough to wait for", 100 * time.Millisecond, 20, 0, 400 * time.Millisecond},
		// 5 at once take 2 s; those that start after 2 s end after 4 s; the others give up after 2.5 s.
		{"too long for all", 2 * time.Second, 10, 10, 4 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newFakeStore()
				s := newFakeService(func(context.Context, *fspb.Message) error { time.Sleep(tc.takes); return nil })
				m := newManager(t, services.Config{Store: st, Services: []services.Spec{{Name: "S", Service: s, MaxParallelism: 5}}})
				start := time.Now()
				if err := m.Ingest(t.Context(), batchOf("S", 20)); err != nil {
					t.Fatal(err)
				}
				waiting, _ := st.counts()
				if n := s.takenOnce(t); n != tc.taken || waiting != tc.backlog || s.most > 5 {
					t.Errorf("taken %d, backlog %d, at once %d; want %d, %d, 5", n, waiting, s.most, tc.taken, tc.backlog)
				}
				if took := time.Since(start); took != tc.after {
					t.Errorf("took %v, want %v", took, tc.after)
				}
				for _, r := range st.rows {
					if r.Attempts != 0 {
						t.Error("a message that was never handed over counts an attempt")
					}
				}
			})
		})
	}
}

func TestSlowServiceHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		slow := newFakeService(func(ctx context.Context, _ *fspb.Message) error { <-ctx.Done(); return ctx.Err() })
		var quickDone time.Duration
		start := time.Now()
		quick := newFakeService(func(context.Context, *fspb.Message) error { quickDone = time.Since(start); return nil })
		m := newManager(t, services.Config{Store: st, Services: append(one("Slow", slow), one("Quick", quick)...)})
		b := batchOf("Slow", 2)
		b.Messages = append(b.Messages, message(clientA, "Quick", 0))
		if err := m.Ingest(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if quickDone != 0 {
			t.Errorf("the quick service had its message after %v", quickDone)
		}
		if took := time.Since(start); took != services.DefaultServiceBudget {
			t.Errorf("Ingest took %v, want the budget", took)
		}
		if waiting, _ := st.counts(); waiting != 2 {
			t.Errorf("backlog of %d, want 2", waiting)
		}
	})
}

func TestOrderOfOneClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeService(nil)
		m := newManager(t, services.Config{Store: newFakeStore(), Services: []services.Spec{{Name: "S", Service: s, MaxParallelism: 1}}})
		b := batchOf("S", 50)
		if err := m.Ingest(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, msg := range b.Messages {
			want = append(want, string(msg.SourceMessageId))
		}
		if !slices.Equal(s.order, want) {
			t.Errorf("arrived as %v", s.order)
		}
	})
}

func TestCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		s := newFakeService(func(ctx context.Context, _ *fspb.Message) error { <-ctx.Done(); return ctx.Err() })
		m := newManager(t, services.Config{Store: st, Services: one("S", s)})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		if err := m.Ingest(ctx, batchOf("S", 30)); !errors.Is(err, context.Canceled) {
			t.Errorf("Ingest = %v, want the caller's cancellation", err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v", took)
		}
		if st.touched() != 0 {
			t.Error("something was stored for a caller that will send it again")
		}
		// A caller that leaves says nothing about the service: its circuit stays closed.
		s.become(nil)
		if err := m.Ingest(t.Context(), batchOf("S", 1)); err != nil || s.takenOnce(t) != 1 {
			t.Errorf("afterwards: %v, taken %d", err, s.takenOnce(t))
		}
	})
}

func TestCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		s := newFakeService(func(ctx context.Context, _ *fspb.Message) error { <-ctx.Done(); return ctx.Err() })
		m := newManager(t, services.Config{Store: st, Services: one("S", s)})
		if err := m.Ingest(t.Context(), batchOf("S", 5)); err != nil { // opens it
			t.Fatal(err)
		}
		start := time.Now()
		for i := range 200 {
			b := services.Batch{ClientID: clientA, Messages: []*fspb.Message{message(clientA, "S", 100+i)}}
			if err := m.Ingest(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != 0 || s.tried() != 5 {
			t.Errorf("a dead service cost %v and %d calls, want none", took, s.tried()-5)
		}
		if waiting, _ := st.counts(); waiting != 205 {
			t.Errorf("backlog of %d, want 205", waiting)
		}
		s.become(nil)
		running(t, m) // what opened the circuit was want of time, so the backlog has to close it
		pass(services.DefaultCircuitOpenFor + time.Minute)
		if n := s.takenOnce(t); n != 205 {
			t.Errorf("%d messages of the backlog taken after the service came back, want 205", n)
		}
		for n := range 2 {
			b := services.Batch{ClientID: clientA, Messages: []*fspb.Message{message(clientA, "S", 1000+n)}}
			if err := m.Ingest(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		if n := s.takenOnce(t); n != 207 {
			t.Errorf("%d messages taken, want the two that the service was given at once too", n)
		}
	})
}

func TestProbeWhoseCallerLeavesProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeService(func(context.Context, *fspb.Message) error { return services.Unavailable(errFlaky) })
		m := newManager(t, services.Config{Store: newFakeStore(), Services: one("S", s)})
		if err := m.Ingest(t.Context(), batchOf("S", 5)); err != nil { // opens the circuit
			t.Fatal(err)
		}
		s.become(func(ctx context.Context, _ *fspb.Message) error { <-ctx.Done(); return ctx.Err() })
		pass(services.DefaultCircuitOpenFor + time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.Ingest(ctx, batchOf("S", 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Ingest = %v", err)
		}
		tried := s.tried()
		if err := m.Ingest(t.Context(), batchOf("S", 50)); err != nil {
			t.Fatal(err)
		}
		if n := s.tried() - tried; n != 1 {
			t.Errorf("%d calls after a probe without outcome, want one more probe", n)
		}
	})
}

func TestFailuresOfMessagesLeaveTheCircuitClosed(t *testing.T) {
	s := newFakeService(func(context.Context, *fspb.Message) error { return errFlaky })
	m := newManager(t, services.Config{Store: newFakeStore(), Services: one("S", s)})
	if err := m.Ingest(t.Context(), batchOf("S", 100)); err != nil {
		t.Fatal(err)
	}
	if n := s.tried(); n != 100 {
		t.Errorf("%d of 100 messages were handed over", n)
	}
}

func TestFullBacklog(t *testing.T) {
	for _, drained := range []bool{true, false} {
		t.Run(fmt.Sprintf("drained %v", drained), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newFakeStore()
				s := newFakeService(func(context.Context, *fspb.Message) error { return errFlaky })
				m := newManager(t, services.Config{Store: st, Services: one("S", s), BacklogMaxMessages: 10})
				if err := m.Ingest(t.Context(), batchOf("S", 10)); err != nil {
					t.Fatal(err)
				}
				if drained {
					time.AfterFunc(3*time.Second, func() { st.set(func() { clear(st.rows) }) })
				}
				start := time.Now()
				err := m.Ingest(t.Context(), services.Batch{ClientID: clientA, Messages: []*fspb.Message{message(clientA, "S", 99)}})
				took := time.Since(start)
				if drained && (err != nil || took < 3*time.Second) {
					t.Errorf("Ingest = %v after %v, want success when there is room", err, took)
				}
				if !drained && (!errors.Is(err, store.ErrQueueFull) || took > services.DefaultRoomWait) {
					t.Errorf("Ingest = %v after %v, want ErrQueueFull within %v", err, took, services.DefaultRoomWait)
				}
			})
		})
	}
}

func TestMessageThatNoStoreHolds(t *testing.T) { // G-16
	for _, answer := range []error{errFlaky, services.Permanent(errNever)} {
		t.Run(answer.Error(), func(t *testing.T) {
			st := newFakeStore()
			st.max = 1000
			s := newFakeService(func(context.Context, *fspb.Message) error { return answer })
			m := newManager(t, services.Config{Store: st, Services: one("S", s)})
			b := batchOf("S", 5)
			b.Messages[2].Data.Value = make([]byte, 2000)
			b.Messages[2].MessageType = strings.Repeat("long", 100)
			if err := m.Ingest(t.Context(), b); err != nil {
				t.Fatalf("Ingest = %v; the client would send it for ever", err)
			}
			dead := st.dead[idOf(b.Messages[2])]
			if !strings.Contains(dead.Reason, "cannot be stored") || dead.Message.GetData() != nil {
				t.Errorf("dead letter %v", dead)
			}
			if got := identity.ClientID(dead.Message.GetSource().GetClientId()); got != clientA {
				t.Errorf("the dead letter is from %v", got)
			}
			if waiting, dead := st.counts(); waiting+dead != 5 {
				t.Errorf("%d neighbours are stored, want 4", waiting+dead-1)
			}
		})
	}
}

func TestServerOwnedFields(t *testing.T) {
	st := newFakeStore()
	var seen *fspb.Message
	s := newFakeService(func(_ context.Context, m *fspb.Message) error { seen = proto.CloneOf(m); return nil })
	m := newManager(t, services.Config{Store: st, Services: one("S", s)})
	b := batchOf("S", 1)
	b.Blacklisted = true
	b.ValidationInfo = &fspb.ValidationInfo{Tags: map[string]string{"zone": "a"}}
	b.Messages[0].Result = &fspb.MessageResult{Failed: true}
	b.Messages[0].Priority = fspb.Message_HIGH
	b.Messages[0].Background = true
	if err := m.Ingest(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if !seen.IsBlocklistedSource || seen.Result != nil || seen.ValidationInfo.GetTags()["zone"] != "a" ||
		seen.Priority != fspb.Message_HIGH || !seen.Background {
		t.Errorf("the service saw %v", seen)
	}
}

func TestManyClientsAtOnce(t *testing.T) {
	st := newFakeStore()
	s := newFakeService(func(_ context.Context, m *fspb.Message) error {
		if m.SourceMessageId[len(m.SourceMessageId)-1] == '3' {
			return errFlaky
		}
		return nil
	})
	m := newManager(t, services.Config{Store: st, Services: []services.Spec{{Name: "S", Service: s, MaxParallelism: 4}, {Name: "N", Factory: services.FactoryNOOP}}})
	var clients sync.WaitGroup
	for c := range 20 {
		clients.Go(func() {
			id := identity.ClientID{byte(c + 1)}
			b := services.Batch{ClientID: id}
			for n := range 10 {
				b.Messages = append(b.Messages, message(id, "S", 100*c+n), message(id, "N", 100*c+n))
			}
			if err := m.Ingest(t.Context(), b); err != nil {
				t.Error(err)
			}
		})
	}
	clients.Wait()
	waiting, dead := st.counts()
	if taken := s.takenOnce(t); taken+waiting != 200 || dead != 0 || s.most > 4 {
		t.Errorf("taken %d, backlog %d, dead %d, at once %d", taken, waiting, dead, s.most)
	}
}
