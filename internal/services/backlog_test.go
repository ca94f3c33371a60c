package services_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/services"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// put adds messages to the backlog behind the Manager's back, as another server or an admin would.
func (f *fakeStore) put(due time.Time, messages ...*fspb.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range messages {
		f.rows[idOf(m)] = &row{due: due, BacklogMessage: store.BacklogMessage{
			ID: idOf(m), Service: m.Destination.ServiceName, Message: proto.CloneOf(m),
		}}
	}
}

func TestServiceThatComesBackLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		s := newFakeService(func(context.Context, *fspb.Message) error { return services.Unavailable(errFlaky) })
		m := newManager(t, services.Config{Store: st, Services: one("S", s)})
		running(t, m)
		if err := m.Ingest(t.Context(), batchOf("S", 300)); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Minute)
		tried := s.tried()
		if tried > 300 { // 5 opened the circuit, then one probe each 5 s and a few that were under way
			t.Errorf("a dead service was called %d times in 10 minutes", tried)
		}
		if n := st.called("FinishBacklog"); n > tried {
			t.Errorf("%d messages were claimed for %d calls of a dead service", n, tried)
		}
		s.become(nil)
		pass(12 * time.Minute) // the longest delay of a retry, and the probe
		if n := s.takenOnce(t); n != 300 {
			t.Errorf("%d of 300 messages arrived", n)
		}
		if waiting, dead := st.counts(); waiting != 0 || dead != 0 {
			t.Errorf("backlog %d, dead letters %d", waiting, dead)
		}
	})
}

func TestOverloadIsRetriedToOneCompletionEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		s := newFakeService(func(context.Context, *fspb.Message) error { time.Sleep(2 * time.Second); return nil })
		m := newManager(t, services.Config{Store: st, Services: []services.Spec{{Name: "S", Service: s, MaxParallelism: 5}}})
		running(t, m)
		if err := m.Ingest(t.Context(), batchOf("S", 20)); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if n := s.takenOnce(t); n != 20 || s.most > 5 {
			t.Errorf("%d of 20 messages arrived, %d at once", n, s.most)
		}
	})
}

func TestFirstRetryIsPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		fail := true
		s := newFakeService(func(context.Context, *fspb.Message) error {
			if fail {
				fail = false
				return errFlaky
			}
			return nil
		})
		m := newManager(t, services.Config{Store: st, Services: one("S", s), BacklogPoll: time.Hour})
		running(t, m)
		if err := m.Ingest(t.Context(), batchOf("S", 1)); err != nil {
			t.Fatal(err)
		}
		pass(3 * time.Second)
		if n := s.takenOnce(t); n != 1 {
			t.Error("a message added here was not tried when it fell due")
		}
	})
}

func TestMessagesOfOthersAreFoundByPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		s := newFakeService(nil)
		m := newManager(t, services.Config{Store: st, Services: one("S", s)})
		running(t, m)
		pass(time.Minute)
		fromAdmin := message(identity.ClientID{}, "S", 1)
		fromAdmin.Source = &fspb.Address{ServiceName: "Backend"}
		st.put(time.Now(), fromAdmin, message(clientA, "Elsewhere", 2))
		pass(2 * time.Second)
		if n := s.takenOnce(t); n != 1 {
			t.Errorf("%d messages taken, want the one of an admin", n)
		}
		if waiting, _ := st.counts(); waiting != 1 {
			t.Error("the message to a service of other servers is gone")
		}
	})
}

func TestIdleBacklogIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		m := newManager(t, services.Config{Store: st, Services: append(one("A", newFakeService(nil)), one("B", newFakeService(nil))...)})
		running(t, m)
		pass(100 * time.Second)
		if n := st.touched(); n < 80 || n > 120 {
			t.Errorf("%d calls of the store in 100 idle seconds, want about one a second", n)
		}
	})
}

func TestRetriesBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		var times []time.Time
		s := newFakeService(func(context.Context, *fspb.Message) error { times = append(times, time.Now()); return errFlaky })
		m := newManager(t, services.Config{Store: st, Services: one("S", s)})
		running(t, m)
		if err := m.Ingest(t.Context(), batchOf("S", 1)); err != nil {
			t.Fatal(err)
		}
		pass(12 * time.Hour)
		last := times[len(times)-1].Sub(times[len(times)-2])
		if last < 5*time.Minute || last > 10*time.Minute+2*time.Second {
			t.Errorf("after %d attempts the delay is %v, want 5 to 10 minutes", len(times), last)
		}
		if early := times[2].Sub(times[1]); early < time.Second || early > 6*time.Second {
			t.Errorf("second delay %v", early)
		}
		if len(times) > 200 {
			t.Errorf("%d attempts in 12 hours", len(times))
		}
	})
}

func TestMaxAttempts(t *testing.T) { // G-36
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		s := newFakeService(func(context.Context, *fspb.Message) error { return errFlaky })
		m := newManager(t, services.Config{Store: st, Services: one("S", s), BacklogMaxAttempts: 4})
		running(t, m)
		b := batchOf("S", 1)
		if err := m.Ingest(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		pass(time.Hour)
		dead := st.dead[idOf(b.Messages[0])]
		if s.tried() != 4 || dead.Reason != "gave up after 4 attempts: not now" || dead.Message.GetData() == nil {
			t.Errorf("%d attempts, dead letter %v", s.tried(), dead)
		}
	})
}

func TestPoisonInTheBacklog(t *testing.T) { // G-01, G-16
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		s := newFakeService(func(_ context.Context, m *fspb.Message) error {
			switch string(m.SourceMessageId) {
			case "S-1":
				panic("boom")
			case "S-2":
				return services.Permanent(errNever)
			}
			return nil
		})
		m := newManager(t, services.Config{Store: st, Services: one("S", s)})
		running(t, m)
		st.put(time.Now(), batchOf("S", 10).Messages...)
		pass(time.Minute)
		if n := s.takenOnce(t); n != 8 {
			t.Errorf("%d of the 8 neighbours arrived", n)
		}
		if waiting, dead := st.counts(); waiting != 0 || dead != 2 {
			t.Errorf("backlog %d, dead letters %d, want 0 and 2", waiting, dead)
		}
	})
}

func TestOneSlowMessageHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		s := newFakeService(func(ctx context.Context, m *fspb.Message) error {
			if string(m.SourceMessageId) == "S-0" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		m := newManager(t, services.Config{Store: st, Services: one("S", s)})
		running(t, m)
		st.put(time.Now(), batchOf("S", 500).Messages...)
		pass(1500 * time.Millisecond) // one poll
		if n := s.takenOnce(t); n != 499 {
			t.Errorf("%d of 499 messages arrived beside a slow one", n)
		}
	})
}

func TestStoreErrorsBackOff(t *testing.T) { // G-36
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		st.down = true
		s := newFakeService(nil)
		m := newManager(t, services.Config{Store: st, Services: one("S", s)})
		running(t, m)
		pass(time.Hour)
		if n := st.touched(); n < 100 || n > 1000 {
			t.Errorf("%d calls in an hour of outage", n)
		}
		st.set(func() { st.down = false })
		st.put(time.Now(), message(clientA, "S", 1))
		pass(time.Minute)
		if n := s.takenOnce(t); n != 1 {
			t.Error("the backlog did not recover")
		}
	})
}

func TestOutcomeOutlastsAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		s := newFakeService(nil)
		m := newManager(t, services.Config{Store: st, Services: one("S", s)})
		running(t, m)
		st.set(func() { st.downFor["FinishBacklog"] = true })
		st.put(time.Now(), message(clientA, "S", 1))
		pass(20 * time.Second)
		st.set(func() { st.downFor["FinishBacklog"] = false })
		pass(5 * time.Minute)
		if n := s.takenOnce(t); n != 1 {
			t.Errorf("taken %d", n)
		}
		if waiting, _ := st.counts(); waiting != 0 {
			t.Error("the message is still in the backlog")
		}
	})
}

func TestSendersUnknownForNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		st.downFor["GetClients"] = true
		st.clients[clientA] = &store.Client{ID: clientA, Blacklisted: true}
		var flags []bool
		s := newFakeService(func(_ context.Context, m *fspb.Message) error {
			flags = append(flags, m.IsBlocklistedSource)
			return nil
		})
		m := newManager(t, services.Config{Store: st, Services: []services.Spec{{Name: "S", Service: s, MaxParallelism: 1}}})
		running(t, m)
		st.put(time.Now(), message(clientA, "S", 1), message(clientB, "S", 2))
		pass(10 * time.Second)
		if s.tried() != 0 {
			t.Error("a message was handed over without knowing whether its sender is blacklisted")
		}
		st.set(func() { st.downFor["GetClients"] = false })
		pass(time.Minute)
		if s.takenOnce(t) != 2 || !slices.Contains(flags, true) || !slices.Contains(flags, false) {
			t.Errorf("taken %d, flags %v; want both, clientA's flagged", s.takenOnce(t), flags)
		}
	})
}

func TestTwoServersNeverShareAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		s := newFakeService(func(context.Context, *fspb.Message) error { time.Sleep(50 * time.Millisecond); return nil })
		for i := range 2 {
			m := newManager(t, services.Config{Store: st, Services: one("S", s), ServerID: fmt.Sprint("server-", i)})
			running(t, m)
		}
		st.put(time.Now(), batchOf("S", 500).Messages...)
		pass(30 * time.Second)
		if n := s.takenOnce(t); n != 500 {
			t.Errorf("%d of 500 arrived", n)
		}
	})
}

func TestClaimDiesWithItsHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		st.put(time.Now(), message(clientA, "S", 1))
		lease := time.Minute
		if claimed, err := st.ClaimBacklog(t.Context(), "crashed", []string{"S"}, 10, lease); err != nil || len(claimed) != 1 {
			t.Fatal(claimed, err)
		}
		s := newFakeService(nil)
		m := newManager(t, services.Config{Store: st, Services: one("S", s)})
		running(t, m)
		pass(lease - time.Second)
		if s.tried() != 0 {
			t.Fatal("a claimed message was taken from its holder")
		}
		pass(3 * time.Second)
		if n := s.takenOnce(t); n != 1 {
			t.Error("the message of a crashed server was not tried again")
		}
	})
}

func TestClaimThatIsNearlyOverIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		s := newFakeService(nil)
		m := newManager(t, services.Config{Store: st, Services: one("S", s)})
		running(t, m)
		st.set(func() { st.slow["GetClients"] = 80 * time.Second }) // the lease is 105 s
		st.put(time.Now(), message(clientA, "S", 1))
		pass(104 * time.Second)
		if s.tried() != 0 {
			t.Fatal("a message was handed over that another server may claim any moment")
		}
		st.set(func() { st.slow["GetClients"] = 0 })
		pass(5 * time.Minute)
		if n := s.takenOnce(t); n != 1 {
			t.Errorf("taken %d", n)
		}
	})
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		s := newFakeService(func(context.Context, *fspb.Message) error { time.Sleep(time.Second); return nil })
		m := newManager(t, services.Config{Store: st, Services: []services.Spec{{Name: "S", Service: s, MaxParallelism: 2}}})
		stop := running(t, m)
		st.put(time.Now(), batchOf("S", 20).Messages...)
		pass(1200 * time.Millisecond)
		start := time.Now()
		stop()
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("stopping took %v", took)
		}
		taken := s.takenOnce(t)
		if taken != s.tried() {
			t.Errorf("%d of %d calls under way were cut off", s.tried()-taken, s.tried())
		}
		for _, r := range st.rows {
			if r.owner != "" || r.due.After(time.Now()) {
				t.Errorf("message %s is still claimed by %q", r.ID, r.owner)
			}
		}
		if waiting, _ := st.counts(); waiting != 20-taken {
			t.Errorf("backlog %d, want %d", waiting, 20-taken)
		}
	})
}

func TestStopDuringAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		s := newFakeService(nil)
		m := newManager(t, services.Config{Store: st, Services: one("S", s)})
		st.put(time.Now(), message(clientA, "S", 1))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		st.downFor["FinishBacklog"], st.downFor["ReleaseBacklog"] = true, true
		go func() { ended <- m.Run(ctx) }()
		pass(5 * time.Second)
		start := time.Now()
		cancel()
		if err := <-ended; !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "claims") {
			t.Errorf("Run = %v, want the failed release", err)
		}
		if took := time.Since(start); took > 15*time.Second {
			t.Errorf("stopping took %v", took)
		}
	})
}

func TestKeepResultsOfTheBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		m := newManager(t, services.Config{Store: st, Services: []services.Spec{{Name: "S", Factory: services.FactoryNOOP}}, KeepResults: true})
		running(t, m)
		msg := message(clientA, "S", 1)
		st.put(time.Now(), msg)
		pass(5 * time.Second)
		if r, ok := st.results[idOf(msg)]; !ok || r.Failed {
			t.Errorf("result %v, stored %v", r, ok)
		}
	})
}
