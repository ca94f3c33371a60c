package notify_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/notify"
	"github.com/farspeak/farspeak/internal/store"
)

// held is a Client whose first request to a server waits at a gate, so that what comes next gathers.
func held(t *testing.T) (client *notify.Client, registry *prometheus.Registry, sink *recorder, address string, release func()) {
	t.Helper()
	sink = newRecorder()
	g := newGate(notify.NewHandler(sink, notify.Config{HandoverKey: handoverKey(1)}))
	address = serve(t, g)
	client, registry = newClient(t, notify.Config{Timeout: deadline, HandoverKeys: newKeyring(handoverKey(1)).keys})
	client.Notify(address, clientID(1<<20))
	receive(t, g.entered)
	return client, registry, sink, address, func() {
		close(g.proceed)
		client.Settled()
	}
}

// Who gets a message without a look into the store is not woken by the same request. A hint for something else, that waits
// beside it, is not lost: the client is woken, and the look-up finds both.
func TestClientPrefersHints(t *testing.T) {
	client, registry, sink, address, release := held(t)
	client.HandOver(address, handover(clientID(0), 0, "before the hint"), handover(clientID(2), 1, "alone"))
	client.NotifyBlacklisted(address, clientID(2))
	client.Notify(address, clientID(0), clientID(1))
	client.HandOver(address, handover(clientID(1), 2, "after the hint"), handover(clientID(0), 3, "also"))
	release()

	if got, want := sink.wokenIDs(), append(clientIDs(2), clientID(1<<20)); !slices.Equal(got, want) {
		t.Errorf("woken %v, want %v", got, want)
	}
	if len(sink.handed) != 1 || !slices.Equal(sink.texts(clientID(2)), []string{"alone"}) || len(sink.blacklisted) != 1 {
		t.Errorf("%d messages handed over, %q for the client that was not woken", len(sink.handed), sink.texts(clientID(2)))
	}
	if got := metric(t, registry, uncarried, "hinted"); got != 3 {
		t.Errorf("%v messages counted as hinted, want 3", got)
	}
}

// What has no room goes as a hint; a request carries no more than it may, in order.
func TestClientBoundsTheBytesThatWait(t *testing.T) {
	client, registry, sink, address, release := held(t)
	text := strings.Repeat("x", store.MaxHandover-20)
	size := notify.HandoverSize(handover(clientID(0), 0, text))
	room, request := notify.MaxHandoverBytesWaiting/size, notify.MaxHandoverBytes/size
	for i := range room + 5 {
		client.HandOver(address, handover(clientID(i), i, text))
	}
	release()

	if got := metric(t, registry, uncarried, "no_room"); got != 5 {
		t.Errorf("%v messages without room, want 5", got)
	}
	if got := len(sink.wokenIDs()); got != 5+1 {
		t.Errorf("%d clients woken, want those without room", got)
	}
	if len(sink.handed) != room || slices.Max(sink.handedSizes) != request {
		t.Errorf("%d messages handed over by requests of %v, want %d by requests of %d", len(sink.handed), sink.handedSizes, room, request)
	}
	if !slices.IsSortedFunc(sink.handed, func(a, b *store.Handover) int { return int(a.Message.Seq - b.Message.Seq) }) {
		t.Error("the order was lost")
	}
}

func TestClientBoundsTheMessagesThatWait(t *testing.T) {
	client, registry, sink, address, release := held(t)
	const extra = 7
	for i := range notify.MaxHandoversWaiting + extra {
		client.HandOver(address, handover(clientID(i), i, "x"))
	}
	release()
	if got := metric(t, registry, uncarried, "no_room"); got != extra {
		t.Errorf("%v messages without room, want %d", got, extra)
	}
	if len(sink.handed) != notify.MaxHandoversWaiting || slices.Max(sink.handedSizes) != notify.MaxHandovers {
		t.Errorf("%d messages handed over by requests of %v", len(sink.handed), sink.handedSizes)
	}
	if got := metric(t, registry, "farspeak_notification_hints_sent_total"); got != notify.MaxHandoversWaiting+extra+1 {
		t.Errorf("%v hints sent, want one for each client", got)
	}
}

// The messages of one client stay in order when they take several requests, and when one of them has no room: the hint in its
// place goes with the first request, which leaves out those of that client that it would have carried.
func TestClientKeepsTheOrder(t *testing.T) {
	client, registry, sink, address, release := held(t)
	for i := range notify.MaxHandoversWaiting {
		client.HandOver(address, handover(clientID(i%2), i, "x"))
	}
	client.HandOver(address, handover(clientID(1), notify.MaxHandoversWaiting, "without room"))
	release()
	seqs := make(map[identity.ClientID][]int64)
	for _, h := range sink.handed {
		seqs[h.Message.ClientID] = append(seqs[h.Message.ClientID], h.Message.Seq)
	}
	whole, rest := seqs[clientID(0)], seqs[clientID(1)]
	if len(whole) != notify.MaxHandoversWaiting/2 || len(rest) != (notify.MaxHandoversWaiting-notify.MaxHandovers)/2 {
		t.Errorf("%d and %d messages handed over", len(whole), len(rest))
	}
	if !slices.IsSorted(whole) || !slices.IsSorted(rest) {
		t.Error("the order was lost")
	}
	if got := sink.wokenIDs(); !slices.Equal(got, []identity.ClientID{clientID(1), clientID(1 << 20)}) {
		t.Errorf("woken: %v", got)
	}
	if got := metric(t, registry, uncarried, "hinted"); got != notify.MaxHandovers/2 {
		t.Errorf("%v messages counted as hinted, want %d", got, notify.MaxHandovers/2)
	}
}

func TestClientSendsUnfitMessagesAsHints(t *testing.T) {
	sink := newRecorder()
	address := serve(t, notify.NewHandler(sink, notify.Config{HandoverKey: handoverKey(1)}))
	client, registry := newClient(t, notify.Config{HandoverKeys: newKeyring(handoverKey(1)).keys})
	nameless := handover(clientID(1), 1, "x")
	nameless.Message.Service = ""
	garbled := handover(clientID(2), 2, "x")
	garbled.Message.Type = "\xff"
	for _, h := range []*store.Handover{handover(clientID(0), 0, strings.Repeat("x", store.MaxHandover+1)), nameless, garbled} {
		client.HandOver(address, h)
		client.Settled()
	}
	if got := sink.wokenIDs(); !slices.Equal(got, clientIDs(3)) || len(sink.handed) != 0 {
		t.Errorf("woken %v, %d handed over", got, len(sink.handed))
	}
	if got := metric(t, registry, uncarried, "unfit"); got != 3 {
		t.Errorf("%v messages counted as unfit, want 3", got)
	}
}

// A request that fails takes its messages with it, and so does the backoff that follows. G-33
func TestClientDropsMessagesOfFailedRequests(t *testing.T) {
	g := newGate(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "broken", http.StatusInternalServerError)
	}))
	address := serve(t, g)
	client, registry := newClient(t, notify.Config{Timeout: deadline, HandoverKeys: newKeyring(handoverKey(1)).keys})
	client.HandOver(address, handover(clientID(0), 0, "a"))
	receive(t, g.entered)
	client.HandOver(address, handover(clientID(1), 1, "b"), handover(clientID(2), 2, "c"))
	close(g.proceed)
	client.Settled()
	client.HandOver(address, handover(clientID(3), 3, "d"))
	client.Settled()
	if got := g.requests.Load(); got != 1 {
		t.Errorf("%d requests, want 1", got)
	}
	if got := metric(t, registry, uncarried, "failed"); got != 3 {
		t.Errorf("%v messages counted as failed, want 3", got)
	}
	if got := metric(t, registry, "farspeak_notification_hints_dropped_total"); got != 4 {
		t.Errorf("%v hints dropped, want 4", got)
	}
}

func TestClientCloseHandsOver(t *testing.T) {
	sink := newRecorder()
	address := serve(t, notify.NewHandler(sink, notify.Config{HandoverKey: handoverKey(1)}))
	client, _ := newClient(t, notify.Config{HandoverKeys: newKeyring(handoverKey(1)).keys})
	client.HandOver(address, handover(clientID(0), 0, "a"))
	if err := client.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	client.HandOver(address, handover(clientID(0), 1, "late"))
	if got := sink.texts(clientID(0)); !slices.Equal(got, []string{"a"}) {
		t.Errorf("handed over: %q", got)
	}
}
