package batch

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are those of one Batcher; its name is the constant label "batch".
type metrics struct {
	items, wait, run        prometheus.Histogram
	splits, refused, panics prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, name string, queued func() float64) *metrics {
	if reg != nil {
		reg = prometheus.WrapRegistererWith(prometheus.Labels{"batch": name}, reg)
	}
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "farspeak_batch_queued_items",
		Help: "Items that wait for the next run.",
	}, queued)
	return &metrics{
		items: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "farspeak_batch_items",
			Help:    "Items in one run.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}),
		wait: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "farspeak_batch_wait_seconds",
			Help:    "Time from queueing an item to the start of its run.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10),
		}),
		run: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "farspeak_batch_run_seconds",
			Help:    "Duration of one run.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10),
		}),
		splits: f.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_batch_splits_total",
			Help: "Failed runs that were split and tried again.",
		}),
		refused: f.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_batch_refused_total",
			Help: "Items refused because the queue was full.",
		}),
		panics: f.NewCounter(prometheus.CounterOpts{
			Name: "farspeak_batch_panics_total",
			Help: "Panics recovered in runs and in the callbacks of items.",
		}),
	}
}
