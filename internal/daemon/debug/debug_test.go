package debug_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/farspeak/farspeak/internal/daemon/debug"
	"github.com/farspeak/farspeak/internal/daemon/run"
)

func probe(h http.Handler, method, path string) (status int, body string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader("body")))
	return w.Code, w.Body.String()
}

func expect(t *testing.T, h http.Handler, method, path string, wantStatus int, wantBody string) {
	t.Helper()
	if status, body := probe(h, method, path); status != wantStatus || body != wantBody {
		t.Errorf("%s %s: %d %q, want %d %q", method, path, status, body, wantStatus, wantBody)
	}
}

// The original answers every method and path with 200 and nothing, from the moment the port is bound.
func TestHealthAnswersAsTheOriginal(t *testing.T) {
	h := debug.NewHealth()
	h.Add("store", func(context.Context) error { return errors.New("down") })
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "WALRUS"} {
		for _, path := range []string{"/", "/x/y", "//a", "/a/../b", "/metrics", "/readyz/", "/healthz/x"} {
			expect(t, h, method, path, 200, "")
		}
	}
	expect(t, h, "GET", "/healthz", 200, "alive\n")
}

func TestReadinessFollowsTheDaemonsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := debug.NewHealth()
		expect(t, h, "GET", "/readyz", 503, "starting\n")
		var storeErr atomic.Pointer[error]
		h.Add("store", func(context.Context) error {
			if p := storeErr.Load(); p != nil {
				return *p
			}
			return nil
		})
		h.Add("listener", func(context.Context) error { return nil })
		h.Started()
		expect(t, h, "GET", "/readyz", 200, "ready\n")

		down := errors.New("dial tcp db:3306: user root refused")
		storeErr.Store(&down)
		expect(t, h, "GET", "/readyz", 200, "ready\n") // still the last result
		time.Sleep(time.Second)                        // of the fake clock
		expect(t, h, "GET", "/readyz", 503, "store\n")
		h.Drain()
		expect(t, h, "GET", "/readyz", 503, "draining\nstore\n")
		storeErr.Store(nil)
		time.Sleep(time.Second)
		expect(t, h, "GET", "/readyz", 503, "draining\n")
		h.Started() // too late
		expect(t, h, "GET", "/readyz", 503, "draining\n")
		expect(t, h, "GET", "/healthz", 200, "alive\n")
	})
}

func TestProbesCostOneRunASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := debug.NewHealth()
		h.Started()
		runs := 0 // guarded by the promise of one run at a time; the race detector checks it
		h.Add("store", func(context.Context) error {
			runs++
			time.Sleep(100 * time.Millisecond)
			return nil
		})
		for second := range 3 {
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() { probe(h, "GET", "/readyz") })
			}
			wg.Wait()
			if runs != second+1 {
				t.Errorf("after %d bursts: %d runs", second+1, runs)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestHangingCheckFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := debug.NewHealth()
		h.Started()
		h.Add("polite", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		h.Add("deaf", func(ctx context.Context) error { <-ctx.Done(); return nil })
		h.Add("fine", func(ctx context.Context) error { return nil })
		start := time.Now()
		if got := h.Failing(t.Context()); !slices.Equal(got, []string{"polite", "deaf"}) {
			t.Errorf("failing: %q", got)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// A probe that gives up must not make the store look bad to the others.
func TestProbeThatLeavesDoesNotFailTheCheck(t *testing.T) {
	h := debug.NewHealth()
	h.Started()
	h.Add("store", func(ctx context.Context) error { return ctx.Err() })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := h.Failing(ctx); len(got) > 0 {
		t.Errorf("failing: %q", got)
	}
}

func TestMetrics(t *testing.T) {
	r := debug.NewRegistry(run.Build{Version: "1.2", Revision: "abc", Go: "go1.26"})
	r.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "farspeak_test_total", Help: "For the test."}))
	h := debug.MetricsHandler(r, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1})
	status, body := probe(h, "GET", "/metrics")
	if status != 200 {
		t.Errorf("status %d", status)
	}
	for _, want := range []string{
		`farspeak_build_info{goversion="go1.26",modified="false",revision="abc",version="1.2"} 1`,
		"farspeak_test_total 0", "go_goroutines ", "process_open_fds ",
	} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	for _, path := range []string{"/", "/debug/pprof/"} {
		if status, _ := probe(h, "GET", path); status != 404 {
			t.Errorf("%s: status %d", path, status)
		}
	}
	if status, _ := probe(h, "POST", "/metrics"); status != 405 {
		t.Errorf("POST: status %d", status)
	}
}

// Two daemons in one process, as in tests, must not collide.
func TestRegistriesAreIndependent(t *testing.T) {
	for range 2 {
		debug.NewRegistry(run.ReadBuild()).MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "same"}))
	}
}

func TestOneBrokenCollectorDoesNotHideTheOthers(t *testing.T) {
	r := prometheus.NewRegistry()
	desc := prometheus.NewDesc("broken", "h", nil, nil)
	r.MustRegister(brokenCollector{desc}, prometheus.NewGauge(prometheus.GaugeOpts{Name: "sound"}))
	status, body := probe(debug.MetricsHandler(r, nil), "GET", "/metrics")
	if status != 200 || !strings.Contains(body, "\nsound 0") {
		t.Errorf("%d %s", status, body)
	}
}

type brokenCollector struct{ desc *prometheus.Desc }

func (c brokenCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }
func (c brokenCollector) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(c.desc, errors.New("broken"))
}

func TestProfilesOnlyOnLoopback(t *testing.T) {
	r := prometheus.NewRegistry()
	for _, tt := range []struct {
		addr net.Addr
		want int
	}{
		{&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, 200},
		{&net.TCPAddr{IP: net.IPv6loopback}, 200},
		{&net.TCPAddr{IP: net.IPv6unspecified}, 404},
		{&net.TCPAddr{}, 404},
		{&net.UnixAddr{Name: "x"}, 404},
		{nil, 404},
	} {
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine?debug=1", "/debug/pprof/cmdline"} {
			if status, _ := probe(debug.MetricsHandler(r, tt.addr), "GET", path); status != tt.want {
				t.Errorf("%v %s: status %d, want %d", tt.addr, path, status, tt.want)
			}
		}
	}
}

func newListener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestServeUntilCancelled(t *testing.T) {
	l := newListener(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- debug.Serve(ctx, l, debug.NewHealth()) }()
	resp, err := http.Post("http://"+l.Addr().String()+"/any", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != 200 || len(body) > 0 {
		t.Errorf("%d %q, %v", resp.StatusCode, body, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
}

func TestServeCutsOffRequestsThatDoNotEnd(t *testing.T) {
	l := newListener(t)
	ctx, cancel := context.WithCancel(t.Context())
	entered := make(chan struct{})
	stuck := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	})
	done := make(chan error, 1)
	go func() { done <- debug.Serve(ctx, l, stuck) }()
	answered := make(chan error, 1)
	go func() {
		resp, err := http.Get("http://" + l.Addr().String())
		if err == nil {
			resp.Body.Close()
		}
		answered <- err
	}()
	<-entered
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-answered; err == nil {
		t.Error("the stuck request was answered")
	}
}

func TestServeTellsOfALostListener(t *testing.T) {
	l := newListener(t)
	l.Close()
	if err := debug.Serve(t.Context(), l, debug.NewHealth()); err == nil {
		t.Error("no error")
	}
}

// Connections past the bound wait, and are served when others end.
func TestServeBoundsConnections(t *testing.T) {
	l := newListener(t)
	var inside, most atomic.Int32
	entered, proceed := make(chan struct{}, 2*debug.MaxConnections), make(chan struct{})
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		defer inside.Add(-1)
		n := inside.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		entered <- struct{}{}
		<-proceed
	})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- debug.Serve(ctx, l, handler) }()

	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	var probes sync.WaitGroup
	for range 2 * debug.MaxConnections {
		probes.Go(func() {
			answer, err := client.Get("http://" + l.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			_ = answer.Body.Close()
		})
	}
	for range debug.MaxConnections {
		<-entered
	}
	close(proceed)
	probes.Wait()
	if n := most.Load(); n != debug.MaxConnections {
		t.Errorf("%d connections served at once, want %d", n, debug.MaxConnections)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
