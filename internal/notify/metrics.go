package notify

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Values of the metric label "form".
const (
	formSingle = "single"
	formBatch  = "batch"
)

// Values of the metric label "outcome" of received notifications.
const (
	outcomeAccepted     = "accepted"
	outcomeUnauthorized = "unauthorized"
	outcomeStopping     = "stopping"
	outcomeRefused      = "refused"
)

type handlerMetrics struct {
	requests  *prometheus.CounterVec // form, outcome
	hints     prometheus.Counter
	handovers prometheus.Counter
	unopened  prometheus.Counter
}

func newHandlerMetrics(reg prometheus.Registerer) *handlerMetrics {
	f := promauto.With(reg)
	m := &handlerMetrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "farspeak_notifications_received_total",
			Help: "Notification requests received, by form and outcome.",
		}, []string{"form", "outcome"}),
		hints: f.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_notification_hints_received_total",
			Help: "Client IDs named by the notifications that were accepted.",
		}),
		handovers: f.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_notification_handovers_received_total",
			Help: "Messages that came with the notifications that were accepted.",
		}),
		unopened: f.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_notification_handovers_unopened_total",
			Help: "Notifications whose messages could not be opened and are read from the store; some are usual after a restart.",
		}),
	}
	for _, form := range []string{formSingle, formBatch} {
		for _, outcome := range []string{outcomeAccepted, outcomeUnauthorized, outcomeStopping, outcomeRefused} {
			m.requests.WithLabelValues(form, outcome)
		}
	}
	return m
}

func form(r *http.Request) string {
	if r.URL.Path == batchPath {
		return formBatch
	}
	return formSingle
}

func outcome(status int) string {
	switch status {
	case http.StatusOK, http.StatusNoContent, http.StatusAccepted:
		return outcomeAccepted
	case http.StatusUnauthorized:
		return outcomeUnauthorized
	case http.StatusServiceUnavailable:
		return outcomeStopping
	default:
		return outcomeRefused
	}
}

// Why hints were dropped: values of the metric label "reason".
const (
	droppedQueueFull      = "queue_full"       // too many clients wait for one server's next request
	droppedBackoff        = "backoff"          // the server failed a short time ago
	droppedFailed         = "failed"           // the request that carried them failed
	droppedTooManyTargets = "too_many_targets" // more servers at once than anybody has
	droppedBadAddress     = "bad_address"      // not of the form host:port
	droppedUnsupported    = "unsupported"      // the server understands the original's form only
	droppedClosed         = "closed"           // stopping
)

// Why messages were not handed over: values of the metric label "reason".
const (
	uncarriedUnfit       = "unfit"       // too large, or incomplete
	uncarriedNoRoom      = "no_room"     // too much waits for one server's next request
	uncarriedHinted      = "hinted"      // a hint for the same client goes along, and makes the server read them
	uncarriedNoKey       = "no_key"      // the server has told no key, or it could not be asked for
	uncarriedRefused     = "refused"     // the server could not open them
	uncarriedUnsupported = "unsupported" // the server understands the original's form only
	uncarriedFailed      = "failed"      // the request that carried them failed, or the one before them
)

// Why requests failed: values of the metric label "reason".
const (
	failedTimeout      = "timeout"
	failedTransport    = "transport"
	failedUnauthorized = "unauthorized"
	failedStatus       = "status"
)

type clientMetrics struct {
	sent       *prometheus.CounterVec // form
	failed     *prometheus.CounterVec // reason
	dropped    *prometheus.CounterVec // reason
	coalesced  prometheus.Counter
	hints      prometheus.Counter
	handedOver prometheus.Counter
	left       *prometheus.CounterVec // reason
	latency    prometheus.Histogram
}

func newClientMetrics(reg prometheus.Registerer, targets func() float64) *clientMetrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "farspeak_notification_targets",
		Help: "Servers to which notifications were sent lately.",
	}, targets)
	m := &clientMetrics{
		sent: f.NewCounterVec(prometheus.CounterOpts{
			Name: "farspeak_notifications_sent_total",
			Help: "Notification requests that a server accepted, by form.",
		}, []string{"form"}),
		failed: f.NewCounterVec(prometheus.CounterOpts{
			Name: "farspeak_notifications_failed_total",
			Help: "Notification requests that failed, by reason.",
		}, []string{"reason"}),
		dropped: f.NewCounterVec(prometheus.CounterOpts{
			Name: "farspeak_notification_hints_dropped_total",
			Help: "Hints that were dropped, by reason; what they stand for is found by the next sweep.",
		}, []string{"reason"}),
		coalesced: f.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_notification_hints_coalesced_total",
			Help: "Hints that were waiting already when they came again.",
		}),
		hints: f.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_notification_hints_sent_total",
			Help: "Hints in the notification requests that were accepted.",
		}),
		handedOver: f.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_notification_handovers_sent_total",
			Help: "Messages in the notification requests that were accepted.",
		}),
		left: f.NewCounterVec(prometheus.CounterOpts{
			Name: "farspeak_notification_handovers_dropped_total",
			Help: "Messages that were not handed over, by reason; their server reads them from the store.",
		}, []string{"reason"}),
		latency: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "farspeak_notification_request_seconds",
			Help:    "Duration of notification requests, failed ones included.",
			Buckets: prometheus.ExponentialBuckets(0.0002, 4, 8),
		}),
	}
	m.start()
	return m
}

// start makes all series exist from the beginning.
func (m *clientMetrics) start() {
	for _, form := range []string{formSingle, formBatch} {
		m.sent.WithLabelValues(form)
	}
	for _, reason := range []string{failedTimeout, failedTransport, failedUnauthorized, failedStatus} {
		m.failed.WithLabelValues(reason)
	}
	for _, reason := range []string{droppedQueueFull, droppedBackoff, droppedFailed, droppedTooManyTargets,
		droppedBadAddress, droppedUnsupported, droppedClosed} {
		m.dropped.WithLabelValues(reason)
	}
	for _, reason := range []string{uncarriedUnfit, uncarriedNoRoom, uncarriedHinted, uncarriedNoKey, uncarriedRefused,
		uncarriedUnsupported, uncarriedFailed} {
		m.left.WithLabelValues(reason)
	}
}

func (m *clientMetrics) drop(reason string, hints int) {
	m.dropped.WithLabelValues(reason).Add(float64(hints))
}

func (m *clientMetrics) uncarried(reason string, messages int) {
	if messages > 0 {
		m.left.WithLabelValues(reason).Add(float64(messages))
	}
}
