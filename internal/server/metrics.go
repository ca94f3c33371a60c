package server

import (
	"crypto/tls"
	"net/http"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/golang/glog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/farspeak/farspeak/internal/store"
)

// Values of the label poll_type, as the original has them.
const (
	pollTypePoll        = "POLL"
	pollTypeStreamStart = "STREAM_START"
	pollTypeStreamFrom  = "STREAM_FROM_CLIENT"
	pollTypeStreamTo    = "STREAM_TO_CLIENT"
)

// megabyte is the unit of the original's size histograms.
const megabyte = 1e6

// complaints is how many log lines a second the trouble of peers and store may cause.
const complaints = 5

// metrics are the server's own; those named fleetspeak_… keep the original's names and labels.
type metrics struct {
	polls, sentMessages, sentBytes, refused, invalid, ended, files *prometheus.CounterVec
	operation, reading, writing, readSize, writeSize               *prometheus.HistogramVec
	panics, registrations, keyMismatches, replaced                 prometheus.Counter
	postponedMarks, lostEnds, swept                                prometheus.Counter
	handedOver, handshakes                                         *prometheus.CounterVec
	clockSkew                                                      prometheus.Gauge

	log   *rate.Limiter
	names nameSet

	seriesMu sync.RWMutex
	series   map[pollKey]*pollSeries // guarded by seriesMu
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	factory := promauto.With(registerer)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return factory.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	single := func(name, help string) prometheus.Counter {
		return factory.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return factory.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help}, pollLabels)
	}
	return &metrics{
		polls: counter("fleetspeak_server_client_polls_total", "Contacts and records of clients.", pollLabels...),
		operation: histogram("fleetspeak_server_client_polls_operation_time_latency",
			"Seconds from the start of a contact or record to its answer."),
		reading: histogram("fleetspeak_server_client_polls_read_time_latency", "Seconds spent reading what a client sent."),
		writing: histogram("fleetspeak_server_client_polls_write_time_latency", "Seconds spent writing to a client."),
		readSize: histogram("fleetspeak_server_client_polls_read_megabytes_size_distribution",
			"Megabytes read from a client."),
		writeSize: histogram("fleetspeak_server_client_polls_write_megabytes_size_distribution",
			"Megabytes written to a client."),
		sentMessages: counter("fleetspeak_messages_sent_total", "Messages handed out to clients.", sentLabels...),
		sentBytes: counter("fleetspeak_messages_sent_payload_bytes_size",
			"Payload bytes of the messages handed out to clients: type URL and value of their data.", sentLabels...),
		refused:       counter("farspeak_refused_total", "Contacts, records and connections refused, by reason.", "reason"),
		invalid:       counter("farspeak_invalid_messages_total", "Messages of clients that cannot be routed, by fault.", "fault"),
		ended:         counter("farspeak_sessions_broken_total", "Sessions that ended out of order, by reason.", "reason"),
		files:         counter("farspeak_file_requests_total", "Requests for files, by outcome.", "outcome"),
		panics:        single("farspeak_panics_total", "Panics that were contained; each is a bug."),
		registrations: single("farspeak_registrations_total", "Clients registered by this server."),
		keyMismatches: single("farspeak_key_mismatches_total",
			"Keys refused because their client ID belongs to another key; each deserves a look."),
		replaced:       single("farspeak_sessions_replaced_total", "Sessions replaced by a newer one of the same client."),
		postponedMarks: single("farspeak_postponed_marks_total", "Hints put off because a queue was full."),
		lostEnds:       single("farspeak_lost_session_ends_total", "Ends of sessions that were not written to the store."),
		handedOver: counter("farspeak_handed_over_messages_total",
			"Messages that peers handed over, by what was done: pushed, or read from the store first.", "outcome"),
		handshakes: counter("farspeak_session_handshakes_total",
			"Sessions over TLS by the handshake of their connection: whether it resumed an earlier one, and how keys were agreed.",
			"resumed", "key_exchange"),
		swept: single("farspeak_swept_clients_total", "Clients that a sweep found to have due messages."),
		clockSkew: factory.NewGauge(prometheus.GaugeOpts{
			Name: "farspeak_store_clock_skew_seconds", Help: "How far this machine's clock is ahead of the store's.",
		}),
		log:   rate.NewLimiter(complaints, 4*complaints),
		names: nameSet{known: make(map[string]struct{})},

		series: make(map[pollKey]*pollSeries),
	}
}

var (
	pollLabels = []string{"http_status_code", "poll_type", "cache_hit"}
	sentLabels = []string{"source_service", "destination_service", "message_type", "client_labels"}
)

// watch registers what is read at scrape time.
func (m *metrics) watch(registerer prometheus.Registerer, s *Server) {
	for _, outcome := range []string{handedPushed, handedRead} {
		m.handedOver.WithLabelValues(outcome)
	}
	factory := promauto.With(registerer)
	gauge := func(name, help string, value func() float64) {
		factory.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	gauge("farspeak_sessions", "Live sessions on this server.", func() float64 { return float64(s.Sessions()) })
	gauge("farspeak_record_memory_bytes", "Memory taken by records that are being read.",
		func() float64 { return float64(s.budget.Used()) })
	gauge("farspeak_push_memory_bytes", "Memory taken by messages on their way to clients.",
		func() float64 { return float64(s.fetchedMemory.used() + s.broadcasts.memory.used()) })
	gauge("farspeak_unrecorded_attempts", "Messages handed out whose attempt is not in the store, as they may be acknowledged soon.",
		func() float64 { return float64(s.handouts.messages.Load()) })
	gauge("farspeak_active_broadcasts", "Broadcasts that this server may hand out.",
		func() float64 { return float64(s.broadcasts.count()) })
	gauge("farspeak_draining", "1 while this server is on its way out.", func() float64 {
		if s.Draining() {
			return 1
		}
		return 0
	})
}

// handshake counts the TLS handshake that a session came by; nil is none.
func (m *metrics) handshake(state *tls.ConnectionState) {
	if state != nil {
		m.handshakes.WithLabelValues(strconv.FormatBool(state.DidResume), state.CurveID.String()).Inc()
	}
}

// complain logs what peers or a failing store can cause at any rate, at a bounded one.
func (m *metrics) complain(format string, args ...any) {
	if m.log.Allow() {
		glog.Warningf(format, args...)
	}
}

// sent counts messages that were handed to a client. The labels of clients are no label values here: a fleet's worth of
// combinations would not fit any metrics store.
func (m *metrics) sent(messages []*store.PendingMessage) {
	for _, message := range messages {
		labels := []string{m.names.bound(sourceService(message.Encoded)), m.names.bound(message.Service),
			m.names.bound(message.Type), ""}
		m.sentMessages.WithLabelValues(labels...).Inc()
		m.sentBytes.WithLabelValues(labels...).Add(float64(payloadSize(message.Encoded)))
	}
}

// maxNames bounds the services and message types that get series of their own.
const maxNames = 200

// nameSet lets the first names through as label values and calls the others "other".
type nameSet struct {
	mu    sync.Mutex
	known map[string]struct{} // guarded by mu
}

func (s *nameSet) bound(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.known[name]; ok {
		return name
	}
	if len(s.known) >= maxNames || !utf8.ValidString(name) {
		return "other"
	}
	s.known[name] = struct{}{}
	return name
}

// sourceService reads source.service_name out of a serialized message, without decoding the rest.
func sourceService(encoded []byte) string {
	source := field(encoded, 2)
	return string(field(source, 2))
}

// payloadSize is the size of type URL and value of a serialized message's data, as the original counts payloads.
func payloadSize(encoded []byte) int {
	data := field(encoded, 7)
	return len(field(data, 1)) + len(field(data, 2))
}

// field returns the last length-delimited field of that number; nil when there is none.
func field(encoded []byte, number protowire.Number) (found []byte) {
	for len(encoded) > 0 {
		n, kind, size := protowire.ConsumeTag(encoded)
		if size < 0 {
			return found
		}
		encoded = encoded[size:]
		if size = protowire.ConsumeFieldValue(n, kind, encoded); size < 0 {
			return found
		}
		if n == number && kind == protowire.BytesType {
			found, _ = protowire.ConsumeBytes(encoded)
		}
		encoded = encoded[size:]
	}
	return found
}

// pollObservation measures one contact or record.
type pollObservation struct {
	metrics *metrics
	kind    string
	start   time.Time
	readAt  time.Time
	writeAt time.Time
	in, out int
}

func (m *metrics) observePoll(kind string) *pollObservation {
	return &pollObservation{metrics: m, kind: kind, start: time.Now()}
}

// read notes that a record of this size has been read; writing that one is about to be written.
func (o *pollObservation) read(size int)    { o.readAt, o.in = time.Now(), size }
func (o *pollObservation) writing(size int) { o.writeAt, o.out = time.Now(), size }

// done ends the measurement with the status that the peer got, or would have got.
func (o *pollObservation) done(status int) {
	series, now := o.metrics.pollSeries(status, o.kind), time.Now()
	series.polls.Inc()
	series.operation.Observe(now.Sub(o.start).Seconds())
	if !o.readAt.IsZero() {
		series.reading.Observe(o.readAt.Sub(o.start).Seconds())
		series.readSize.Observe(float64(o.in) / megabyte)
	}
	if !o.writeAt.IsZero() && status == http.StatusOK {
		series.writing.Observe(now.Sub(o.writeAt).Seconds())
		series.writeSize.Observe(float64(o.out) / megabyte)
	}
}

// pollSeries are the metrics of the contacts and records of one kind that ended with one status.
type pollSeries struct {
	polls                                            prometheus.Counter
	operation, reading, writing, readSize, writeSize prometheus.Observer
}

// pollKey names them.
type pollKey struct {
	status int
	kind   string
}

// pollSeries finds the metrics, by one look-up instead of one for each of them. There are few: statuses and kinds are the
// server's own.
func (m *metrics) pollSeries(status int, kind string) *pollSeries {
	key := pollKey{status, kind}
	m.seriesMu.RLock()
	known := m.series[key]
	m.seriesMu.RUnlock()
	if known != nil {
		return known
	}
	labels := []string{strconv.Itoa(status), kind, "false"} // there is no cache of clients to hit
	made := &pollSeries{
		polls: m.polls.WithLabelValues(labels...), operation: m.operation.WithLabelValues(labels...),
		reading: m.reading.WithLabelValues(labels...), readSize: m.readSize.WithLabelValues(labels...),
		writing: m.writing.WithLabelValues(labels...), writeSize: m.writeSize.WithLabelValues(labels...),
	}
	m.seriesMu.Lock()
	defer m.seriesMu.Unlock()
	m.series[key] = made
	return made
}
