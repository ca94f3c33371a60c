package debug

import (
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"

	"github.com/golang/glog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/farspeak/farspeak/internal/daemon/run"
)

// maxScrapes bounds the scrapes at once; each of them walks every metric.
const maxScrapes = 4

// NewRegistry returns the registry of a daemon, with the metrics that every daemon has: the Go runtime, the process, and
// farspeak_build_info.
func NewRegistry(b run.Build) *prometheus.Registry {
	r := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "farspeak_build_info",
		Help: "Always 1; the labels tell which binary this is.",
		ConstLabels: prometheus.Labels{
			"version": b.Version, "revision": b.Revision, "modified": strconv.FormatBool(b.Modified), "goversion": b.Go,
		},
	})
	info.Set(1)
	r.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// MetricsHandler serves GET /metrics, and the profiles of /debug/pprof/ when only this machine can reach the listener: a
// profile costs CPU time and tells of what is in memory.
func MetricsHandler(g prometheus.Gatherer, listener net.Addr) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(g, promhttp.HandlerOpts{
		ErrorLog:            errorLog{},
		ErrorHandling:       promhttp.ContinueOnError, // one broken collector must not hide the others
		MaxRequestsInFlight: maxScrapes,
		Timeout:             readTimeout,
	}))
	if isLoopback(listener) {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// errorLog takes what promhttp says about collectors.
type errorLog struct{}

func (errorLog) Println(v ...any) { glog.Warning(append([]any{"metrics: "}, v...)...) }
