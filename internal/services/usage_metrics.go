package services

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
)

// usageKey tells series of resource reports apart.
type usageKey struct {
	labels      string
	blacklisted bool
	scope       string
	version     string
}

func (k usageKey) coarse() usageKey {
	return usageKey{labels: k.labels, blacklisted: k.blacklisted, scope: other, version: other}
}

// usageSeries is what one resource report touches.
type usageSeries struct {
	received                                             prometheus.Counter
	meanUser, maxUser, meanSystem, maxSystem, mean, most prometheus.Observer
}

func newUsageTable(f promauto.Factory) *table[usageKey, *usageSeries] {
	names := []string{"client_data_labels", "blacklisted", "scope", "version"}
	const prefix = "fleetspeak_server_resource_usage_data_received_"
	received := f.NewCounterVec(prometheus.CounterOpts{Name: prefix + "total", Help: "Resource usage reports of clients."}, names)
	histogram := func(name, help string) *prometheus.HistogramVec {
		return f.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + name, Help: help}, names)
	}
	meanUser := histogram("mean_user_cpu_rate_distribution", "Mean user CPU rate of reporting processes, in ms/s.")
	maxUser := histogram("max_user_cpu_rate_distribution", "Highest user CPU rate of reporting processes, in ms/s.")
	meanSystem := histogram("mean_system_cpu_rate_distribution", "Mean system CPU rate of reporting processes, in ms/s.")
	maxSystem := histogram("max_system_cpu_rate", "Highest system CPU rate of reporting processes, in ms/s.")
	mean := histogram("mean_resident_memory_bytes_distribution", "Mean resident memory of reporting processes.")
	most := histogram("max_resident_memory_bytes_distribution", "Highest resident memory of reporting processes.")
	return newTable(maxSeries, func(k usageKey) *usageSeries {
		values := []string{k.labels, strconv.FormatBool(k.blacklisted), k.scope, k.version}
		return &usageSeries{
			received:   received.WithLabelValues(values...),
			meanUser:   meanUser.WithLabelValues(values...),
			maxUser:    maxUser.WithLabelValues(values...),
			meanSystem: meanSystem.WithLabelValues(values...),
			maxSystem:  maxSystem.WithLabelValues(values...),
			mean:       mean.WithLabelValues(values...),
			most:       most.WithLabelValues(values...),
		}
	}, usageKey.coarse)
}

// used counts a resource report that was stored.
func (m *metrics) used(from sender, d *monitoringpb.ResourceUsageData) {
	s := m.usage.get(usageKey{from.bare, from.blacklisted, d.GetScope(), d.GetVersion()})
	s.received.Inc()
	u := d.GetResourceUsage()
	if u == nil {
		return
	}
	s.meanUser.Observe(u.GetMeanUserCpuRate())
	s.maxUser.Observe(u.GetMaxUserCpuRate())
	s.meanSystem.Observe(u.GetMeanSystemCpuRate())
	s.maxSystem.Observe(u.GetMaxSystemCpuRate())
	s.mean.Observe(u.GetMeanResidentMemory())
	s.most.Observe(float64(u.GetMaxResidentMemory()))
}

// killKey tells series of kill notifications apart.
type killKey struct {
	labels      string
	blacklisted bool
	service     string
	reason      string
}

func (k killKey) coarse() killKey {
	return killKey{labels: k.labels, blacklisted: k.blacklisted, service: other, reason: k.reason}
}

func newKillTable(f promauto.Factory) *table[killKey, prometheus.Counter] {
	received := f.NewCounterVec(prometheus.CounterOpts{
		Name: "fleetspeak_server_kill_notifications_received_total",
		Help: "Processes of services that agents killed.",
	}, []string{"client_data_labels", "blacklisted", "service", "reason"})
	return newTable(maxSeries, func(k killKey) prometheus.Counter {
		return received.WithLabelValues(k.labels, strconv.FormatBool(k.blacklisted), k.service, k.reason)
	}, killKey.coarse)
}

// killed counts a kill notification. A reason that has no name counts as other.
func (m *metrics) killed(from sender, d *monitoringpb.KillNotification) {
	why := other
	if name, known := monitoringpb.KillNotification_Reason_name[int32(d.GetReason())]; known {
		why = name
	}
	m.kills.get(killKey{from.bare, from.blacklisted, d.GetService(), why}).Inc()
}
