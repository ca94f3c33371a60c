package notify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/notify"
)

// serveDirectly calls a handler without a network, so that any path can be given.
func serveDirectly(h http.Handler, path string, body []byte) int {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(string(body)))
	r.URL = &url.URL{Path: path}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

func TestClientToHandler(t *testing.T) {
	sink := newRecorder()
	address := serve(t, notify.NewHandler(sink, notify.Config{Secret: "s3cret"}))
	client, registry := newClient(t, notify.Config{Secret: "s3cret"})

	client.Notify(address, clientID(1), clientID(2))
	sink.wait(t, 1)
	client.NotifyBlacklisted(address, clientID(3))
	sink.wait(t, 1)
	client.NotifyBroadcasts([]string{address, "", "local"})
	sink.wait(t, 1)
	client.Settled()

	if got := sink.wokenIDs(); !slices.Equal(got, []identity.ClientID{clientID(1), clientID(2)}) {
		t.Errorf("woken: %v", got)
	}
	if !slices.Equal(sink.blacklisted, []identity.ClientID{clientID(3)}) || sink.changed != 1 {
		t.Errorf("blacklisted %v, broadcasts changed %d times", sink.blacklisted, sink.changed)
	}
	if got := metric(t, registry, "farspeak_notification_hints_sent_total"); got != 4 {
		t.Errorf("%v hints counted as sent, want 4", got)
	}
	if got := metric(t, registry, "farspeak_notification_request_seconds"); got != 3 {
		t.Errorf("%v requests measured, want 3", got)
	}
}

func TestClientSkips(t *testing.T) {
	sink := newRecorder()
	address := serve(t, notify.NewHandler(sink, notify.Config{}))
	client, registry := newClient(t, notify.Config{})
	disabled, _ := newClient(t, notify.Config{Disabled: true})

	for _, nowhere := range []string{"", "local"} {
		client.Notify(nowhere, clientID(1))
	}
	client.Notify(address)
	for _, bad := range []string{"host", "host:", ":80", "host:80/path", "user@host:80", "host:80?q", "a b:80", strings.Repeat("h", 400) + ":80"} {
		client.Notify(bad, clientID(1))
		client.NotifyBlacklisted(bad, clientID(1))
	}
	disabled.Notify(address, clientID(1))
	disabled.NotifyBroadcasts([]string{address})
	client.Settled()
	disabled.Settled()

	if len(sink.calls) != 0 {
		t.Error("something was sent")
	}
	if got := metric(t, registry, "farspeak_notification_hints_dropped_total", "bad_address"); got != 16 {
		t.Errorf("%v hints dropped for their address, want 16", got)
	}
	if got := metric(t, registry, "farspeak_notification_targets"); got != 0 {
		t.Errorf("%v targets, want none", got)
	}
}

// gate is a handler in front of another that lets requests pass one by one.
type gate struct {
	next     http.Handler
	entered  chan struct{} // one element for each request that came
	proceed  chan struct{} // one element lets one pass; closed, all
	requests atomic.Int32
}

func newGate(next http.Handler) *gate {
	return &gate{next: next, entered: make(chan struct{}, 1<<16), proceed: make(chan struct{})}
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.requests.Add(1)
	// The server looks for a peer that leaves only once the body is read.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	g.entered <- struct{}{}
	select {
	case <-g.proceed:
		g.next.ServeHTTP(w, r)
	case <-r.Context().Done():
	}
}

// What comes while a request is under way goes into the next one, each client once. G-33
func TestClientCoalesces(t *testing.T) {
	sink := newRecorder()
	g := newGate(notify.NewHandler(sink, notify.Config{}))
	address := serve(t, g)
	client, registry := newClient(t, notify.Config{Timeout: deadline})

	client.Notify(address, clientID(0))
	receive(t, g.entered)
	for range 3 {
		for _, id := range clientIDs(100) {
			client.Notify(address, id)
		}
		client.NotifyBroadcasts([]string{address})
	}
	close(g.proceed)
	client.Settled()

	if got := g.requests.Load(); got != 2 {
		t.Errorf("%d requests, want 2", got)
	}
	if got, want := sink.wokenIDs(), sorted(append(clientIDs(100), clientID(0))); !slices.Equal(got, want) {
		t.Errorf("%d clients woken, want %d", len(got), len(want))
	}
	if sink.changed != 1 {
		t.Errorf("broadcasts changed %d times, want once", sink.changed)
	}
	if got := metric(t, registry, "farspeak_notification_hints_coalesced_total"); got != 202 {
		t.Errorf("%v hints coalesced, want 202", got)
	}
}

func TestClientBoundsWhatWaits(t *testing.T) {
	sink := newRecorder()
	g := newGate(notify.NewHandler(sink, notify.Config{}))
	address := serve(t, g)
	client, registry := newClient(t, notify.Config{Timeout: deadline})

	client.Notify(address, clientID(1<<20))
	receive(t, g.entered)
	client.Notify(address, clientIDs(notify.MaxWaiting+10)...)
	close(g.proceed)
	client.Settled()

	if got := metric(t, registry, "farspeak_notification_hints_dropped_total", "queue_full"); got != 10 {
		t.Errorf("%v hints dropped, want 10", got)
	}
	if got := len(sink.wokenIDs()); got != notify.MaxWaiting+1 {
		t.Errorf("%d clients woken, want %d", got, notify.MaxWaiting+1)
	}
	if got, want := g.requests.Load(), int32(1+notify.MaxWaiting/notify.MaxBatchIDs); got != want {
		t.Errorf("%d requests, want %d", got, want)
	}
}

func TestClientBoundsTargets(t *testing.T) {
	listener, err := net.Listen("tcp4", ":0") // reached at every address of 127.0.0.0/8
	if err != nil {
		t.Fatal(err)
	}
	sink := newRecorder()
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: notify.NewHandler(sink, notify.Config{})}}
	server.Start()
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client, registry := newClient(t, notify.Config{})
	const servers = notify.MaxTargets + 50
	for i := range servers {
		client.Notify(fmt.Sprintf("127.1.%d.%d:%s", i/200, i%200+1, port), clientID(i))
		sink.wait(t, 1)
		client.Settled()
	}
	if got := metric(t, registry, "farspeak_notification_targets"); got != notify.MaxTargets {
		t.Errorf("%v targets kept, want %d", got, notify.MaxTargets)
	}
	if got := len(sink.wokenIDs()); got != servers {
		t.Errorf("%d servers heard, want %d", got, servers)
	}
}

// original understands the original's form only, and keeps what it was asked.
func original(requests chan<- string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r.Method + " " + r.URL.Path
		if !strings.HasPrefix(r.URL.Path, "/client/") {
			http.Error(w, "not found", http.StatusNotFound)
		}
	})
}

func TestClientFallsBackToTheOriginalsForm(t *testing.T) {
	requests := make(chan string, 100)
	address := serve(t, original(requests))
	client, registry := newClient(t, notify.Config{})

	client.Notify(address, clientID(1))
	client.Settled()
	client.NotifyBlacklisted(address, clientID(2)) // remembered: no second try of the batched form
	client.Settled()
	client.NotifyBroadcasts([]string{address})
	client.Settled()
	client.Elapse(address)
	client.Notify(address, clientID(3)) // rechecked after a while
	client.Settled()
	close(requests)

	want := []string{
		"POST /farspeak/notify",
		"POST /client/" + clientID(1).String(),
		"POST /client/" + clientID(2).String(),
		"POST /farspeak/notify",
		"POST /client/" + clientID(3).String(),
	}
	var got []string
	for r := range requests {
		got = append(got, r)
	}
	if !slices.Equal(got, want) {
		t.Errorf("requests %q, want %q", got, want)
	}
	if sent := metric(t, registry, "farspeak_notifications_sent_total", "single"); sent != 3 {
		t.Errorf("%v single notifications counted, want 3", sent)
	}
	if dropped := metric(t, registry, "farspeak_notification_hints_dropped_total", "unsupported"); dropped != 1 {
		t.Errorf("%v hints counted as unsupported, want 1", dropped)
	}
}

// A dead server costs one connection attempt now and then, and nothing to whoever notifies. G-33
func TestClientBacksOffFromADeadServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	var complaints atomic.Int32
	client, registry := newClient(t, notify.Config{Failed: func(string, error) { complaints.Add(1) }})
	for round := range 3 {
		client.Notify(address, clientID(1))
		client.Settled()
		for range 1000 {
			client.Notify(address, clientID(2))
		}
		client.Settled()
		if got := metric(t, registry, "farspeak_notifications_failed_total", "transport"); got != float64(round+1) {
			t.Errorf("round %d: %v requests failed, want one a round", round, got)
		}
		client.Elapse(address)
	}
	if got := metric(t, registry, "farspeak_notification_hints_dropped_total", "backoff"); got != 3000 {
		t.Errorf("%v hints dropped in backoff, want 3000", got)
	}
	if got := complaints.Load(); got != 1 {
		t.Errorf("the owner heard %d times of one failure", got)
	}
}

func TestClientRecovers(t *testing.T) {
	sink := newRecorder()
	handler := notify.NewHandler(sink, notify.Config{})
	var broken atomic.Bool
	address := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			http.Error(w, "broken", http.StatusInternalServerError)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	client, registry := newClient(t, notify.Config{})

	broken.Store(true)
	client.Notify(address, clientID(1))
	client.Settled()
	broken.Store(false)
	client.Elapse(address)
	client.Notify(address, clientID(2))
	client.Settled()
	client.Notify(address, clientID(3))
	client.Settled()

	if got := sink.wokenIDs(); !slices.Equal(got, []identity.ClientID{clientID(2), clientID(3)}) {
		t.Errorf("woken: %v", got)
	}
	if got := metric(t, registry, "farspeak_notifications_failed_total", "status"); got != 1 {
		t.Errorf("%v failures by status, want 1", got)
	}
}

// A server that accepts and never answers holds up neither its callers nor the other servers. G-33
func TestClientIsNotHeldUpByAHangingServer(t *testing.T) {
	g := newGate(http.NotFoundHandler())
	hanging := serve(t, g)
	sink := newRecorder()
	healthy := serve(t, notify.NewHandler(sink, notify.Config{}))
	client, registry := newClient(t, notify.Config{Timeout: 50 * time.Millisecond})

	client.Notify(hanging, clientID(1))
	receive(t, g.entered)
	client.Notify(hanging, clientID(2))
	client.Notify(healthy, clientID(3))
	sink.wait(t, 1)
	client.Settled()

	if got := metric(t, registry, "farspeak_notifications_failed_total", "timeout"); got != 1 {
		t.Errorf("%v requests timed out, want 1", got)
	}
	if got := metric(t, registry, "farspeak_notification_hints_dropped_total", "failed"); got != 1 {
		t.Errorf("%v hints dropped with their request, want 1", got)
	}
}

func TestClientIsRefusedWithoutTheSecret(t *testing.T) {
	sink := newRecorder()
	address := serve(t, notify.NewHandler(sink, notify.Config{Secret: "s3cret"}))
	client, registry := newClient(t, notify.Config{})
	client.Notify(address, clientID(1))
	client.Settled()
	if got := metric(t, registry, "farspeak_notifications_failed_total", "unauthorized"); got != 1 {
		t.Errorf("%v requests refused, want 1", got)
	}
}

// Requests stay on the server they were meant for.
func TestClientFollowsNoRedirect(t *testing.T) {
	sink := newRecorder()
	elsewhere := serve(t, notify.NewHandler(sink, notify.Config{}))
	address := serve(t, http.RedirectHandler("http://"+elsewhere+"/farspeak/notify", http.StatusTemporaryRedirect))
	client, registry := newClient(t, notify.Config{})
	client.Notify(address, clientID(1))
	client.Settled()
	if len(sink.calls) != 0 {
		t.Error("a redirect was followed")
	}
	if got := metric(t, registry, "farspeak_notifications_failed_total", "status"); got != 1 {
		t.Errorf("%v failures by status, want 1", got)
	}
}

// One connection serves a server, and one that the server closed meanwhile costs no hint.
func TestClientKeepsOneConnection(t *testing.T) {
	sink := newRecorder()
	var opened atomic.Int32
	server := httptest.NewUnstartedServer(notify.NewHandler(sink, notify.Config{}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	address := server.Listener.Addr().String()
	client, registry := newClient(t, notify.Config{})
	for i := range 20 {
		client.Notify(address, clientID(i))
		client.Settled()
	}
	if got := opened.Load(); got != 1 {
		t.Errorf("%d connections for 20 requests, want 1", got)
	}
	for i := range 20 {
		server.CloseClientConnections()
		client.Notify(address, clientID(100+i))
		client.Settled()
	}
	if got := metric(t, registry, "farspeak_notification_hints_dropped_total"); got != 0 {
		t.Errorf("%v hints lost to closed connections", got)
	}
	if got := len(sink.wokenIDs()); got != 40 {
		t.Errorf("%d clients woken, want 40", got)
	}
}

func TestClientCloseWaits(t *testing.T) {
	sink := newRecorder()
	g := newGate(notify.NewHandler(sink, notify.Config{}))
	address := serve(t, g)
	client, registry := newClient(t, notify.Config{Timeout: deadline})

	client.Notify(address, clientID(1))
	receive(t, g.entered)
	client.Notify(address, clientID(2))
	closed := make(chan error, 1)
	go func() { closed <- client.Close(context.Background()) }()
	close(g.proceed)
	if err := receive(t, closed); err != nil {
		t.Errorf("Close: %v", err)
	}
	if got := sink.wokenIDs(); !slices.Equal(got, []identity.ClientID{clientID(1), clientID(2)}) {
		t.Errorf("woken before Close returned: %v", got)
	}
	client.Notify(address, clientID(3))
	client.NotifyBroadcasts([]string{address})
	if got := metric(t, registry, "farspeak_notification_hints_dropped_total", "closed"); got != 2 {
		t.Errorf("%v late hints dropped, want 2", got)
	}
}

func TestClientCloseGivesUp(t *testing.T) {
	g := newGate(http.NotFoundHandler())
	address := serve(t, g)
	client, _ := newClient(t, notify.Config{Timeout: time.Hour})
	client.Notify(address, clientID(1))
	receive(t, g.entered)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := client.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v, want deadline exceeded", err)
	}
}

func BenchmarkNotify(b *testing.B) {
	server := httptest.NewServer(notify.NewHandler(newRecorder(), notify.Config{}))
	defer server.Close()
	client := notify.NewClient(notify.Config{})
	address := server.Listener.Addr().String()
	n := 0
	for b.Loop() {
		client.Notify(address, clientID(n%1000))
		n++
	}
	_ = client.Close(b.Context())
}
