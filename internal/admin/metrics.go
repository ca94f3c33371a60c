package admin

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc/codes"
)

// Values of the metric label "reason" of refused calls.
const (
	refusedToken = "token"
	refusedBusy  = "busy"
)

// Values of the metric label "destination" of inserted messages.
const (
	destinationClient  = "client"
	destinationService = "service"
)

type metrics struct {
	calls       *prometheus.HistogramVec // method
	codes       *prometheus.CounterVec   // method, code
	refused     *prometheus.CounterVec   // reason
	messages    *prometheus.CounterVec   // destination, duplicate
	panics      prometheus.Counter
	stalled     prometheus.Counter
	underWay    prometheus.Gauge
	connections prometheus.Gauge

	refusedConnections prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		calls: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "farspeak_admin_call_seconds",
			Help:    "Duration of calls, by method.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
		}, []string{"method"}),
		codes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "farspeak_admin_calls_total",
			Help: "Calls that ended, by method and gRPC code.",
		}, []string{"method", "code"}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "farspeak_admin_refused_calls_total",
			Help: "Calls that were refused before their message was read, by reason.",
		}, []string{"reason"}),
		messages: f.NewCounterVec(prometheus.CounterOpts{
			Name: "farspeak_admin_messages_inserted_total",
			Help: "Messages that InsertMessage accepted, by kind of destination; duplicates were known already.",
		}, []string{"destination", "duplicate"}),
		panics: f.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_admin_panics_total",
			Help: "Panics recovered in calls.",
		}),
		underWay: f.NewGauge(prometheus.GaugeOpts{
			Name: "farspeak_admin_calls_under_way",
			Help: "Calls under way, KeepAlive and health checks aside.",
		}),
		connections: f.NewGauge(prometheus.GaugeOpts{
			Name: "farspeak_admin_connections",
			Help: "Connections of callers.",
		}),
		stalled: f.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_admin_stalled_calls_total",
			Help: "Calls that ended because their caller did not send the request, or did not read, for too long.",
		}),
		refusedConnections: f.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_admin_refused_connections_total",
			Help: "Connections that were closed because their source had too many.",
		}),
	}
	for _, reason := range []string{refusedToken, refusedBusy} {
		m.refused.WithLabelValues(reason)
	}
	m.messages.WithLabelValues(destinationClient, "false")
	m.messages.WithLabelValues(destinationClient, "true")
	m.messages.WithLabelValues(destinationService, "false")
	return m
}

func (m *metrics) observe(method string, code codes.Code, took time.Duration) {
	m.calls.WithLabelValues(method).Observe(took.Seconds())
	m.codes.WithLabelValues(method, code.String()).Inc()
}

func (m *metrics) inserted(destination string, duplicate bool) {
	text := "false"
	if duplicate {
		text = "true"
	}
	m.messages.WithLabelValues(destination, text).Inc()
}
