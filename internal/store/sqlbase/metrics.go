package sqlbase

import (
	"database/sql"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are those of one Store.
type metrics struct {
	operations   *prometheus.HistogramVec
	statements   prometheus.Counter
	transactions prometheus.Counter
	retries      *prometheus.CounterVec
	evicted      prometheus.Counter
}

func newMetrics(cfg Config) *metrics {
	f := promauto.With(cfg.Registerer)
	registerPools(cfg)
	return &metrics{
		operations: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "fleetspeak_server_datastore_operations_completed_latency",
			Help: "Duration of datastore operations in seconds.",
		}, []string{"operation", "errored"}),
		statements: f.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_store_statements_total",
			Help: "Statements sent to the database, without those that begin and end transactions.",
		}),
		transactions: f.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_store_transactions_total",
			Help: "Transactions begun, including repeated ones.",
		}),
		retries: f.NewCounterVec(prometheus.CounterOpts{
			Name: "farspeak_store_retries_total",
			Help: "Transactions that were run again, by the reason.",
		}, []string{"reason"}),
		evicted: f.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_dead_letters_evicted_total",
			Help: "Dead letters that this daemon removed before their time because there were too many.",
		}),
	}
}

// registerPools adds the state of the connection pools, by database name.
func registerPools(cfg Config) {
	if cfg.Registerer == nil {
		return
	}
	pools := map[string]*sql.DB{"store": cfg.Writer}
	if cfg.Reader != cfg.Writer {
		pools = map[string]*sql.DB{"store_writer": cfg.Writer, "store_reader": cfg.Reader}
	}
	if cfg.Transactions != cfg.Writer {
		pools["store_transactions"] = cfg.Transactions
	}
	for name, db := range pools {
		cfg.Registerer.MustRegister(collectors.NewDBStatsCollector(db, name))
	}
}

func (m *metrics) observe(operation string, took time.Duration, errored bool) {
	m.operations.WithLabelValues(operation, strconv.FormatBool(errored)).Observe(took.Seconds())
}
