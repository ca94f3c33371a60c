package notify_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/notify"
	notifypb "github.com/farspeak/farspeak/proto/farspeak/notify"
)

// keyring answers the question for keys with what it holds, and counts the questions.
type keyring struct {
	asked atomic.Int32
	key   atomic.Pointer[[]byte]
}

func newKeyring(key []byte) *keyring {
	k := &keyring{}
	k.key.Store(&key)
	return k
}

func (k *keyring) keys(context.Context, string) ([]byte, error) {
	k.asked.Add(1)
	if key := k.key.Load(); key != nil {
		return *key, nil
	}
	return nil, errors.New("no store")
}

// texts returns the messages that were handed over for a client, in order.
func (r *recorder) texts(id identity.ClientID) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var texts []string
	for _, h := range r.handed {
		if h.Message.ClientID == id {
			texts = append(texts, string(h.Message.Encoded))
		}
	}
	return texts
}

const (
	handedOver = "farspeak_notification_handovers_sent_total"
	uncarried  = "farspeak_notification_handovers_dropped_total"
)

func TestClientHandsOver(t *testing.T) {
	sink := newRecorder()
	handlerRegistry := prometheus.NewRegistry()
	address := serve(t, notify.NewHandler(sink, notify.Config{
		HandoverKey: handoverKey(1), Secret: "s3cret", Registerer: handlerRegistry,
	}))
	ring := newKeyring(handoverKey(1))
	client, registry := newClient(t, notify.Config{HandoverKeys: ring.keys, Secret: "s3cret"})

	client.HandOver(address)
	client.HandOver("local", handover(clientID(9), 0, "nowhere"))
	client.HandOver(address, handover(clientID(1), 0, "a"))
	client.Settled()
	client.HandOver(address, handover(clientID(2), 1, "b"), handover(clientID(1), 2, "c"), handover(clientID(2), 3, "d"))
	client.Settled()

	if got := len(sink.wokenIDs()); got != 0 {
		t.Errorf("%d clients were woken, want none", got)
	}
	if a, b := sink.texts(clientID(1)), sink.texts(clientID(2)); !slices.Equal(a, []string{"a", "c"}) || !slices.Equal(b, []string{"b", "d"}) {
		t.Errorf("handed over %q and %q", a, b)
	}
	if got := ring.asked.Load(); got != 1 {
		t.Errorf("the key was asked for %d times, want once", got)
	}
	for name, want := range map[string]float64{
		handedOver: 4, uncarried: 0, "farspeak_notification_hints_sent_total": 3, "farspeak_notifications_sent_total": 2,
	} {
		if got := metric(t, registry, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if got := metric(t, handlerRegistry, "farspeak_notification_handovers_received_total"); got != 4 {
		t.Errorf("%v messages counted as received, want 4", got)
	}
}

func TestClientAsksForNoKeyWithoutNeed(t *testing.T) {
	sink := newRecorder()
	address := serve(t, notify.NewHandler(sink, notify.Config{HandoverKey: handoverKey(1)}))
	ring := newKeyring(handoverKey(1))
	client, _ := newClient(t, notify.Config{HandoverKeys: ring.keys})
	client.Notify(address, clientID(1))
	client.NotifyBroadcasts([]string{address})
	client.Settled()
	if got := ring.asked.Load(); got != 0 || len(sink.wokenIDs()) != 1 {
		t.Errorf("the key was asked for %d times, %d clients woken", got, len(sink.wokenIDs()))
	}
}

// A server that was started anew has another key: the messages under the old one are found by their hints, later ones are
// handed over under the new one, which is not asked for too often.
func TestClientLearnsANewKey(t *testing.T) {
	sink := newRecorder()
	handlerRegistry := prometheus.NewRegistry()
	address := serve(t, notify.NewHandler(sink, notify.Config{HandoverKey: handoverKey(2), Registerer: handlerRegistry}))
	ring := newKeyring(handoverKey(1))
	client, registry := newClient(t, notify.Config{HandoverKeys: ring.keys})

	began := time.Now()
	client.HandOver(address, handover(clientID(1), 0, "under the old key"))
	if due := client.KeyDue(address); due.Before(began.Add(notify.KeyAgain)) {
		t.Errorf("the key may be asked for again after %v, want %v", due.Sub(began), notify.KeyAgain)
	}
	next := handoverKey(2)
	ring.key.Store(&next)
	client.Elapse(address)
	client.HandOver(address, handover(clientID(2), 1, "under the new key"))
	client.Settled()

	if got := sink.wokenIDs(); !slices.Equal(got, []identity.ClientID{clientID(1)}) {
		t.Errorf("woken: %v", got)
	}
	if got := sink.texts(clientID(2)); !slices.Equal(got, []string{"under the new key"}) {
		t.Errorf("handed over: %q", got)
	}
	if got := ring.asked.Load(); got != 2 {
		t.Errorf("the key was asked for %d times, want twice", got)
	}
	if got := metric(t, registry, uncarried, "refused"); got != 1 {
		t.Errorf("%v messages refused, want 1", got)
	}
	if got := metric(t, registry, "farspeak_notifications_failed_total"); got != 0 {
		t.Errorf("%v requests failed, want none", got)
	}
	if got := metric(t, handlerRegistry, "farspeak_notification_handovers_unopened_total"); got != 1 {
		t.Errorf("%v notifications counted that did not open, want 1", got)
	}
}

// Without a key, messages go as hints, and the question is not repeated for a while.
func TestClientWithoutAKey(t *testing.T) {
	failing := newKeyring(nil)
	failing.key.Store(nil)
	for name, ring := range map[string]*keyring{
		"none": newKeyring(nil), "no store": failing, "a short one": newKeyring(make([]byte, notify.HandoverKeySize-1)),
	} {
		t.Run(name, func(t *testing.T) {
			sink := newRecorder()
			address := serve(t, notify.NewHandler(sink, notify.Config{HandoverKey: handoverKey(1)}))
			client, registry := newClient(t, notify.Config{HandoverKeys: ring.keys})
			began := time.Now()
			client.HandOver(address, handover(clientID(0), 0, "a"))
			if due := client.KeyDue(address); due.Before(began.Add(notify.Keyless)) {
				t.Errorf("the key may be asked for again after %v, want %v", due.Sub(began), notify.Keyless)
			}
			client.HandOver(address, handover(clientID(1), 1, "b"))
			client.Settled()
			if got := ring.asked.Load(); got != 1 {
				t.Errorf("the key was asked for %d times, want once", got)
			}
			client.Elapse(address)
			key := handoverKey(1)
			ring.key.Store(&key)
			client.HandOver(address, handover(clientID(2), 2, "c"))
			client.Settled()

			if got := sink.wokenIDs(); !slices.Equal(got, clientIDs(2)) {
				t.Errorf("woken: %v", got)
			}
			if got := sink.texts(clientID(2)); !slices.Equal(got, []string{"c"}) {
				t.Errorf("handed over once there was a key: %q", got)
			}
			if got := metric(t, registry, uncarried, "no_key"); got != 2 {
				t.Errorf("%v messages counted as without a key, want 2", got)
			}
		})
	}
}

func TestClientThatNeverHandsOver(t *testing.T) {
	sink := newRecorder()
	address := serve(t, notify.NewHandler(sink, notify.Config{HandoverKey: handoverKey(1)}))
	client, registry := newClient(t, notify.Config{})
	client.HandOver(address, handover(clientID(0), 0, "a"), handover(clientID(1), 1, "b"))
	client.Settled()
	if got := sink.wokenIDs(); !slices.Equal(got, clientIDs(2)) {
		t.Errorf("woken: %v", got)
	}
	if got := metric(t, registry, uncarried, "no_key"); got != 2 {
		t.Errorf("%v messages counted as without a key, want 2", got)
	}
}

// A store that does not answer leaves the hints the time that they need.
func TestClientIsNotHeldUpByTheQuestionForAKey(t *testing.T) {
	t.Parallel()
	sink := newRecorder()
	address := serve(t, notify.NewHandler(sink, notify.Config{HandoverKey: handoverKey(1)}))
	client, registry := newClient(t, notify.Config{HandoverKeys: func(ctx context.Context, _ string) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	client.HandOver(address, handover(clientID(0), 0, "a"))
	client.Settled()
	if got := sink.wokenIDs(); !slices.Equal(got, clientIDs(1)) {
		t.Errorf("woken: %v", got)
	}
	if got := metric(t, registry, "farspeak_notifications_failed_total"); got != 0 {
		t.Errorf("%v requests failed, want none", got)
	}
}

// A server without a key takes hints, and says that it opened nothing.
func TestHandlerWithoutAKey(t *testing.T) {
	sink := newRecorder()
	address := serve(t, notify.NewHandler(sink, notify.Config{}))
	client, registry := newClient(t, notify.Config{HandoverKeys: newKeyring(handoverKey(1)).keys})
	client.HandOver(address, handover(clientID(0), 0, "a"))
	client.Settled()
	if got := sink.wokenIDs(); !slices.Equal(got, clientIDs(1)) || len(sink.handed) != 0 {
		t.Errorf("woken %v, %d handed over", got, len(sink.handed))
	}
	if got := metric(t, registry, uncarried, "refused"); got != 1 {
		t.Errorf("%v messages refused, want 1", got)
	}
}

// What does not open takes none of the hints with it.
func TestHandlerCountsHintsBesideWhatDoesNotOpen(t *testing.T) {
	key := handoverKey(1)
	id := clientID(5)
	spoilt := handoverProto("text")
	spoilt.Service = ""
	seal := func(key []byte, h *notifypb.Handover) []byte {
		return sealText(t, key, marshal(t, &notifypb.Handovers{Handovers: []*notifypb.Handover{h}}))
	}
	for name, test := range map[string]struct {
		sealed []byte
		want   int
		handed int
	}{
		"valid":       {seal(key, handoverProto("text")), http.StatusNoContent, 1},
		"other key":   {seal(handoverKey(2), handoverProto("text")), http.StatusAccepted, 0},
		"truncated":   {seal(key, handoverProto("text"))[:60], http.StatusAccepted, 0},
		"garbage":     {[]byte("garbage"), http.StatusAccepted, 0},
		"spoilt":      {seal(key, spoilt), http.StatusAccepted, 0},
		"no messages": {sealText(t, key, nil), http.StatusAccepted, 0},
		"nothing":     {nil, http.StatusNoContent, 0},
	} {
		t.Run(name, func(t *testing.T) {
			sink := newRecorder()
			address := serve(t, notify.NewHandler(sink, notify.Config{HandoverKey: key}))
			batch := &notifypb.Batch{
				ClientIds: [][]byte{id[:]}, BlacklistedClientIds: [][]byte{id[:]}, BroadcastsChanged: true, Sealed: test.sealed,
			}
			status, body := do(t, http.MethodPost, "http://"+address+"/farspeak/notify", "", encode(t, batch))
			if status != test.want || body != "" {
				t.Errorf("status %d and %q, want %d and nothing", status, body, test.want)
			}
			woken := slices.Equal(sink.wokenIDs(), []identity.ClientID{id})
			if !woken || len(sink.blacklisted) != 1 || sink.changed != 1 || len(sink.handed) != test.handed {
				t.Errorf("the sink heard %v, %v, %d and %d messages", sink.woken, sink.blacklisted, sink.changed, len(sink.handed))
			}
		})
	}
}

// A server of before finds every client in the field that it knows.
func TestClientNamesClientsToOlderServers(t *testing.T) {
	named := make(chan []identity.ClientID, 10)
	address := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var batch notifypb.Batch
		if err != nil || proto.Unmarshal(body, &batch) != nil {
			http.Error(w, "no batch", http.StatusBadRequest)
			return
		}
		var ids []identity.ClientID
		for _, raw := range batch.ClientIds {
			ids = append(ids, identity.ClientID(raw))
		}
		named <- ids
		w.WriteHeader(http.StatusNoContent)
	}))
	client, _ := newClient(t, notify.Config{HandoverKeys: newKeyring(handoverKey(1)).keys})
	client.HandOver(address, handover(clientID(1), 0, "a"), handover(clientID(0), 1, "b"), handover(clientID(1), 2, "c"))
	if got := receive(t, named); !slices.Equal(sorted(got), clientIDs(2)) {
		t.Errorf("named: %v", got)
	}
}

func TestClientHandsNothingOverInTheOriginalsForm(t *testing.T) {
	requests := make(chan string, 100)
	address := serve(t, original(requests))
	client, registry := newClient(t, notify.Config{HandoverKeys: newKeyring(handoverKey(1)).keys})
	client.HandOver(address, handover(clientID(1), 0, "a"), handover(clientID(1), 1, "b"))
	client.Settled()
	client.HandOver(address, handover(clientID(2), 2, "c"))
	client.Settled()
	close(requests)
	var got []string
	for r := range requests {
		got = append(got, r)
	}
	want := []string{
		"POST /farspeak/notify", "POST /client/" + clientID(1).String(), "POST /client/" + clientID(2).String(),
	}
	if !slices.Equal(got, want) {
		t.Errorf("requests %q, want %q", got, want)
	}
	if got := metric(t, registry, uncarried, "unsupported"); got != 3 {
		t.Errorf("%v messages counted as unsupported, want 3", got)
	}
}
