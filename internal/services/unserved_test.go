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

// insertMany stores n messages to a service as fs-admin does, in a fake store.
func (f *fakeStore) insertMany(service string, n int) {
	for i := range n {
		f.put(time.Now(), inserted(service, i).Message)
	}
}

func TestMessagesThatNoServerTakesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, reg := newFakeStore(), prometheus.NewRegistry()
		m := newManager(t, services.Config{Store: st, Services: one("S", newFakeService(nil)), Registerer: reg})
		running(t, m)
		st.insertMany("Removed", 250)
		pass(services.DefaultUnservedAfter - time.Minute)
		st.put(time.Now(), inserted("Removed", 1000).Message)
		if waiting, dead := st.counts(); waiting != 251 || dead != 0 {
			t.Fatalf("backlog %d, dead letters %d before the time", waiting, dead)
		}
		pass(2 * time.Minute)
		if waiting, dead := st.counts(); waiting != 1 || dead != 250 {
			t.Errorf("backlog %d, dead letters %d; want the young message and 250", waiting, dead)
		}
		if got := st.results[inserted("Removed", 7).ID]; !got.Failed || got.Reason != `unknown service "Removed"` {
			t.Errorf("result %+v", got)
		}
		expect(t, reg, `farspeak_dead_letters_total{service="S"} 0
farspeak_dead_letters_total{service="other"} 250
farspeak_dead_letters_total{service="system"} 0`, "farspeak_dead_letters_total")
	})
}

func TestMessagesOfAnotherServersServiceStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		running(t, newManager(t, services.Config{Store: st, ServerID: "server-1", Services: one("S", newFakeService(nil))}))
		theirs := newFakeService(func(context.Context, *fspb.Message) error { return services.Unavailable(errFlaky) })
		running(t, newManager(t, services.Config{Store: st, ServerID: "server-2", Services: one("Theirs", theirs)}))
		st.insertMany("Theirs", 700) // more than the probes of a dead service try within the time
		pass(services.DefaultUnservedAfter + 10*time.Minute)
		if waiting, dead := st.counts(); waiting != 700 || dead != 0 {
			t.Errorf("backlog %d, dead letters %d while the backend is down", waiting, dead)
		}
		theirs.become(nil)
		pass(20 * time.Minute)
		if n := theirs.takenOnce(t); n != 700 {
			t.Errorf("%d of 700 messages arrived", n)
		}
	})
}

func TestNothingFailsForAnOutageOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore()
		running(t, newManager(t, services.Config{Store: st, Services: one("S", newFakeService(nil))}))
		st.insertMany("Theirs", 10)
		pass(services.DefaultUnservedAfter / 2)
		st.set(func() { st.down = true })
		pass(2 * services.DefaultUnservedAfter)
		st.set(func() { st.down = false })
		pass(services.DefaultUnservedAfter - time.Minute)
		if _, dead := st.counts(); dead != 0 {
			t.Errorf("%d messages failed, though nobody could have taken them", dead)
		}
		pass(2 * time.Minute)
		if _, dead := st.counts(); dead != 10 {
			t.Errorf("%d messages failed long after the outage, want 10", dead)
		}
	})
}
