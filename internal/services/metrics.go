package services

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/sony/gobreaker/v2"

	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// maxSeries bounds the combinations of what clients choose in metric labels: source services, message types, scopes,
// versions. The first ones get series of their own, all others share one, named "other".
const maxSeries = 500

const other = "other"

// metrics are those of the original under its names, and ours under "farspeak_".
type metrics struct {
	allowed  labelFilter
	messages *table[messageKey, *messageSeries]
	usage    *table[usageKey, *usageSeries]
	kills    *table[killKey, prometheus.Counter]

	errored      *prometheus.HistogramVec
	droppedTotal *prometheus.CounterVec
	savedTotal   *prometheus.CounterVec
	savedBytes   *prometheus.CounterVec

	panics        *prometheus.CounterVec
	deadLetters   *prometheus.CounterVec
	backlogDepth  *prometheus.GaugeVec
	backlogAge    *prometheus.GaugeVec
	backlogBytes  *prometheus.GaugeVec
	backlogFull   prometheus.Counter
	backlogErrors prometheus.Counter
	foreign       prometheus.Counter
}

// messageKey tells series of messages apart.
type messageKey struct{ source, service, kind, labels string }

// messageSeries is what nearly every message touches, looked up at once. The index of a pair says yes.
type messageSeries struct {
	key       messageKey
	ingested  [2]prometheus.Counter // backlogged
	bytes     [2]prometheus.Counter
	processed [2]prometheus.Observer // first try
}

func newMetrics(reg prometheus.Registerer, allowed []string) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return f.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"service"})
	}
	single := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	ingested := counter("fleetspeak_messages_ingested_total", "Messages from clients and from the backlog taken up for processing.",
		"backlogged", "source_service", "destination_service", "message_type", "client_labels")
	bytes := counter("fleetspeak_messages_ingested_payload_bytes_size", "Payload bytes of messages taken up for processing.",
		"backlogged", "source_service", "destination_service", "message_type", "client_labels")
	processed := histogram("fleetspeak_server_messages_processed_latency", "Seconds in which services took messages.",
		"message_type", "service", "is_first_try", "client_labels")
	return &metrics{
		allowed:  newLabelFilter(allowed),
		messages: newTable(maxSeries, seriesMaker(ingested, bytes, processed), messageKey.coarse),
		usage:    newUsageTable(f),
		kills:    newKillTable(f),

		errored: histogram("fleetspeak_server_messages_errored_latency", "Seconds after which services failed messages.",
			"message_type", "is_temp", "is_first_try", "client_labels"),
		droppedTotal: counter("fleetspeak_server_messages_dropped_total", "Messages not handed over because their service was busy or unavailable; they are in the backlog.",
			"service", "message_type", "is_first_try", "client_labels"),
		savedTotal: counter("fleetspeak_messages_saved_total", "Messages from clients of which something was stored.",
			"service", "message_type", "for_client", "client_labels"),
		savedBytes: counter("fleetspeak_messages_saved_payload_bytes_size", "Payload bytes of messages from clients stored for a retry.",
			"service", "message_type", "for_client", "client_labels"),

		panics:        counter("farspeak_service_panics_total", "Panics recovered in services.", "service"),
		deadLetters:   counter("farspeak_dead_letters_total", "Messages that failed for good and were set aside.", "service"),
		backlogDepth:  gauge("farspeak_backlog_depth", "Messages in the backlog of a service, on all servers together."),
		backlogAge:    gauge("farspeak_backlog_oldest_age_seconds", "Age of the oldest message in the backlog of a service."),
		backlogBytes:  gauge("farspeak_backlog_bytes", "Bytes of the messages in the backlog of a service."),
		backlogFull:   single("farspeak_backlog_full_total", "Messages that had to wait because the backlog was full."),
		backlogErrors: single("farspeak_backlog_errors_total", "Failed calls to the store while working on the backlog."),
		foreign:       single("farspeak_foreign_acks_total", "Acknowledgements by clients of messages that are not theirs; ignored."),
	}
}

func seriesMaker(ingested, bytes *prometheus.CounterVec, processed *prometheus.HistogramVec) func(messageKey) *messageSeries {
	return func(k messageKey) *messageSeries {
		s := &messageSeries{key: k}
		for i, yes := range []string{"false", "true"} {
			s.ingested[i] = ingested.WithLabelValues(yes, k.source, k.service, k.kind, k.labels)
			s.bytes[i] = bytes.WithLabelValues(yes, k.source, k.service, k.kind, k.labels)
			s.processed[i] = processed.WithLabelValues(k.kind, k.service, yes, k.labels)
		}
		return s
	}
}

// coarse is the key of the series that all further combinations share.
func (k messageKey) coarse() messageKey {
	return messageKey{source: other, service: k.service, kind: other, labels: k.labels}
}

// of returns the series of a message; service is the configured name, or other.
func (m *metrics) of(service string, msg *fspb.Message, from sender) *messageSeries {
	return m.messages.get(messageKey{msg.GetSource().GetServiceName(), service, msg.GetMessageType(), from.labels})
}

func index(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

func payloadSize(msg *fspb.Message) float64 {
	return float64(len(msg.GetData().GetTypeUrl()) + len(msg.GetData().GetValue()))
}

// ingested counts a message that is about to be processed; u is nil for an unknown service.
func (m *metrics) ingested(u *unit, msg *fspb.Message, from sender, backlogged bool) {
	s, i := m.of(u.label(), msg, from), index(backlogged)
	s.ingested[i].Inc()
	s.bytes[i].Add(payloadSize(msg))
}

// handed counts the answer of a service.
func (m *metrics) handed(service string, msg *fspb.Message, from sender, first bool, o outcome, took time.Duration) {
	s := m.of(service, msg, from)
	if o.verdict == taken {
		s.processed[index(first)].Observe(took.Seconds())
		return
	}
	temporary := strconv.FormatBool(o.verdict != failed)
	m.errored.WithLabelValues(s.key.kind, temporary, strconv.FormatBool(first), from.labels).Observe(took.Seconds())
}

// unknownService counts a message to nobody. The original calls that temporary.
func (m *metrics) unknownService(msg *fspb.Message, from sender) {
	m.errored.WithLabelValues(m.of(other, msg, from).key.kind, "true", "true", from.labels).Observe(0)
}

// dropped counts a message that its service could not be given.
func (m *metrics) dropped(service string, msg *fspb.Message, from sender, first bool) {
	m.droppedTotal.WithLabelValues(service, m.of(service, msg, from).key.kind, strconv.FormatBool(first), from.labels).Inc()
}

// saved counts a message of which something was stored. Completed ones count without their size.
func (m *metrics) saved(k kept, from sender) {
	name := k.unit.label()
	kind := m.of(name, k.message, from).key.kind
	m.savedTotal.WithLabelValues(name, kind, "false", from.labels).Inc()
	if k.retry {
		m.savedBytes.WithLabelValues(name, kind, "false", from.labels).Add(payloadSize(k.message))
	}
	if k.dead {
		m.deadLetters.WithLabelValues(name).Inc()
	}
}

// finished counts the end of a message of the backlog.
func (m *metrics) finished(u *unit, out store.BacklogOutcome) {
	if out.Dead {
		m.deadLetters.WithLabelValues(u.name).Inc()
	}
}

// backlogStatus sets the gauges. Services that are not configured here count together.
func (m *metrics) backlogStatus(status []store.BacklogStatus, units map[string]*unit) {
	sums := map[string]store.BacklogStatus{other: {}}
	for name := range units {
		sums[name] = store.BacklogStatus{}
	}
	for _, s := range status {
		name := s.Service
		if units[name] == nil {
			name = other
		}
		sum := sums[name]
		sums[name] = store.BacklogStatus{Depth: sum.Depth + s.Depth, Bytes: sum.Bytes + s.Bytes, Oldest: max(sum.Oldest, s.Oldest)}
	}
	for name, sum := range sums {
		m.backlogDepth.WithLabelValues(name).Set(float64(sum.Depth))
		m.backlogBytes.WithLabelValues(name).Set(float64(sum.Bytes))
		m.backlogAge.WithLabelValues(name).Set(sum.Oldest.Seconds())
	}
}

// watch registers what is read off the services when somebody asks.
func (m *metrics) watch(reg prometheus.Registerer, units map[string]*unit) {
	f := promauto.With(reg)
	for name, u := range units {
		labels := prometheus.Labels{"service": name}
		m.panics.WithLabelValues(name)
		m.deadLetters.WithLabelValues(name)
		f.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "farspeak_service_inflight", Help: "Messages that a service is processing.", ConstLabels: labels,
		}, func() float64 { return float64(u.inflight.Load()) })
		f.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "farspeak_service_circuit_open", Help: "1 while a service counts as unavailable and is left alone.", ConstLabels: labels,
		}, func() float64 { return float64(index(u.state() != gobreaker.StateClosed)) })
	}
}
