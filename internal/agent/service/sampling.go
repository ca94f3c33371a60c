package service

import (
	"time"

	"github.com/farspeak/farspeak/internal/agent/monitor"
)

// Unless something else is configured, or a memory limit wants a closer look, a process is measured once a minute, so that
// an idle machine is not woken more often. Reports go out every ten minutes, as with the protocol's defaults.
const (
	easySamplePeriod = time.Minute
	easySampleSize   = 10
)

// sampling says how a process is measured.
type sampling struct {
	size   int           // samples in a report
	period time.Duration // between them
}

// readSampling fills in what is not configured. easy says that nothing speaks for measuring often.
func readSampling(size int32, period time.Duration, easy bool) sampling {
	s := sampling{size: int(size), period: period}
	if s.size == 0 && s.period == 0 && easy {
		return sampling{size: easySampleSize, period: easySamplePeriod}
	}
	if s.size < 2 {
		s.size = monitor.DefaultSize
	}
	if s.period == 0 {
		s.period = monitor.DefaultPeriod
	}
	return s
}
