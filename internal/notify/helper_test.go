package notify_test

import (
	"cmp"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/notify"
	"github.com/farspeak/farspeak/internal/store"
)

// deadline is how long a test waits for what has to happen.
const deadline = 10 * time.Second

// recorder is a Sink that keeps what it is told.
type recorder struct {
	mu          sync.Mutex
	woken       []identity.ClientID
	blacklisted []identity.ClientID
	handed      []*store.Handover
	handedSizes []int // messages in each call
	changed     int
	calls       chan struct{} // one element for each call
}

func newRecorder() *recorder { return &recorder{calls: make(chan struct{}, 1<<17)} }

func (r *recorder) Wake(ids []identity.ClientID) {
	r.mu.Lock()
	r.woken = append(r.woken, ids...)
	r.mu.Unlock()
	r.calls <- struct{}{}
}

func (r *recorder) Blacklisted(ids []identity.ClientID) {
	r.mu.Lock()
	r.blacklisted = append(r.blacklisted, ids...)
	r.mu.Unlock()
	r.calls <- struct{}{}
}

func (r *recorder) HandOver(handovers []*store.Handover) {
	r.mu.Lock()
	r.handed = append(r.handed, handovers...)
	r.handedSizes = append(r.handedSizes, len(handovers))
	r.mu.Unlock()
	r.calls <- struct{}{}
}

func (r *recorder) BroadcastsChanged() {
	r.mu.Lock()
	r.changed++
	r.mu.Unlock()
	r.calls <- struct{}{}
}

func (r *recorder) wokenIDs() []identity.ClientID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return sorted(r.woken)
}

func sorted(ids []identity.ClientID) []identity.ClientID {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b identity.ClientID) int { return slices.Compare(a[:], b[:]) })
	return ids
}

// wait returns when the sink was called n times more.
func (r *recorder) wait(t *testing.T, n int) {
	t.Helper()
	for range n {
		receive(t, r.calls)
	}
}

func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(deadline):
		t.Fatal("nothing came in time")
		panic("unreachable")
	}
}

// clientID makes distinct IDs.
func clientID(n int) identity.ClientID {
	var id identity.ClientID
	binary.BigEndian.PutUint64(id[:], uint64(n)+1)
	return id
}

func clientIDs(n int) []identity.ClientID {
	ids := make([]identity.ClientID, n)
	for i := range ids {
		ids[i] = clientID(i)
	}
	return ids
}

// serve runs handler on loopback and returns its address.
func serve(t *testing.T, handler http.Handler) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// newClient makes a Client with metrics, which is closed after the test.
func newClient(t *testing.T, cfg notify.Config) (*notify.Client, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewRegistry()
	cfg.Registerer = registry
	client := notify.NewClient(cfg)
	t.Cleanup(func() { _ = client.Close(t.Context()) })
	return client, registry
}

// metric sums the series of a name that carry all the given label values.
func metric(t *testing.T, registry *prometheus.Registry, name string, values ...string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.Metric {
			missing := len(values)
			for _, label := range m.Label {
				if slices.Contains(values, label.GetValue()) {
					missing--
				}
			}
			if missing == 0 {
				total += cmp.Or(m.GetCounter().GetValue(), m.GetGauge().GetValue(), float64(m.GetHistogram().GetSampleCount()))
			}
		}
	}
	return total
}
