package monitor

import (
	"time"

	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
)

// window gathers the samples of one report. Rates are between neighbours inside the window, so there is one less of them.
type window struct {
	last    Sample
	samples int

	userRates, systemRates rates
	resident, maxResident  int64 // sum and maximum, bytes
	descriptors            int64 // sum
	maxDescriptors         int
}

// rates are milliseconds of CPU per second.
type rates struct{ sum, max float64 }

func (r *rates) add(used, elapsed time.Duration) {
	rate := float64(used.Milliseconds()) / elapsed.Seconds()
	r.sum += rate
	r.max = max(r.max, rate)
}

func (w *window) size() int { return w.samples }

// add takes a sample, or reports that it does not follow on the one before: the clock stood still, or another process has
// the number now.
func (w *window) add(s Sample) bool {
	if w.samples > 0 {
		elapsed := s.At.Sub(w.last.At)
		if elapsed <= 0 || s.User < w.last.User || s.System < w.last.System {
			return false
		}
		w.userRates.add(s.User-w.last.User, elapsed)
		w.systemRates.add(s.System-w.last.System, elapsed)
	}
	w.last = s
	w.samples++
	w.resident += s.Resident
	w.maxResident = max(w.maxResident, s.Resident)
	w.descriptors += int64(s.Descriptors)
	w.maxDescriptors = max(w.maxDescriptors, s.Descriptors)
	return true
}

func (w *window) aggregate() *monitoringpb.AggregatedResourceUsage {
	n, intervals := float64(w.samples), float64(w.samples-1)
	return &monitoringpb.AggregatedResourceUsage{
		MeanUserCpuRate:    w.userRates.sum / intervals,
		MaxUserCpuRate:     w.userRates.max,
		MeanSystemCpuRate:  w.systemRates.sum / intervals,
		MaxSystemCpuRate:   w.systemRates.max,
		MeanResidentMemory: float64(w.resident) / n,
		MaxResidentMemory:  w.maxResident,
		MaxNumFds:          int32(w.maxDescriptors),
		MeanNumFds:         float64(w.descriptors) / n,
	}
}
