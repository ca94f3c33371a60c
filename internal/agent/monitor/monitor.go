// Package monitor measures the resources of one process over time: samples, and a report for each window of samples.
//
// A Monitor owns no process and kills none; whoever runs it is told of each sample and each report and decides.
package monitor

import (
	"context"
	"errors"
	"math/bits"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
)

// Defaults of the protocol.
const (
	DefaultPeriod = 30 * time.Second
	DefaultSize   = 20
)

// ErrUnsupported says that other processes cannot be measured on this system.
var ErrUnsupported = errors.New("measuring a process is not supported on this system")

// Sample is one look at a process.
type Sample struct {
	At           time.Time
	User, System time.Duration // CPU time used since the start of the process
	Resident     int64         // bytes
	Descriptors  int
}

// Config says what to measure and whom to tell.
type Config struct {
	// Scope is "system" for the agent, else a service's name.
	Scope   string
	PID     int
	Version string
	// Started is when the process began.
	Started time.Time
	// Zero is the origin of the common beat: processes of one period and one Zero are looked at in the same moments, once
	// they are no longer new. The zero time: the start of this process.
	Zero time.Time
	// Period is the time between samples once the process is no longer new. 0: DefaultPeriod.
	Period time.Duration
	// Size is the number of samples in a report, at least 2. 0: DefaultSize.
	Size int
	// Read looks at the process. Nil: Read of this package.
	Read func(pid int) (Sample, error)
	// Sampled is called with each sample; may be nil.
	Sampled func(Sample)
	// Report is called with each report.
	Report func(*monitoringpb.ResourceUsageData)
}

// loaded is when this process began to run. A beat of its own keeps the machines of a fleet apart.
var loaded = time.Now()

// Monitor measures one process.
type Monitor struct {
	cfg    Config
	window window
	target int // samples of the report in preparation
}

// New returns a monitor that does not run yet.
func New(cfg Config) *Monitor {
	if cfg.Period <= 0 {
		cfg.Period = DefaultPeriod
	}
	if cfg.Size < 2 {
		cfg.Size = DefaultSize
	}
	if cfg.Read == nil {
		cfg.Read = Read
	}
	if cfg.Zero.IsZero() {
		cfg.Zero = loaded
	}
	return &Monitor{cfg: cfg, target: cfg.Size + quickSamples(cfg.Period)}
}

// quickSamples is how many samples a new process gets before they are a period apart: after 1, 2, 4, … seconds.
func quickSamples(period time.Duration) int {
	return max(0, bits.Len64(uint64(period/time.Second))-1)
}

// Run measures until ctx ends.
func (m *Monitor) Run(ctx context.Context) {
	interval := min(time.Second, m.cfg.Period)
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		m.sample()
		interval = min(2*interval, m.cfg.Period)
		if interval < m.cfg.Period {
			timer.Reset(interval)
		} else {
			timer.Reset(m.untilBeat(time.Now()))
		}
	}
}

// untilBeat is the time to the next beat that is half a period away at least. An idle agent wakes up on the beat, once for
// all that it measures.
func (m *Monitor) untilBeat(now time.Time) time.Duration {
	period := m.cfg.Period
	since := now.Sub(m.cfg.Zero) % period
	if since < 0 { // the origin lies ahead
		since += period
	}
	if left := period - since; left >= period/2 {
		return left
	}
	return 2*period - since
}

// sample takes one sample. One that does not fit those before begins a new window, and ends the longer first one.
func (m *Monitor) sample() {
	s, err := m.cfg.Read(m.cfg.PID)
	if err != nil {
		m.restart()
		return
	}
	if m.cfg.Sampled != nil {
		m.cfg.Sampled(s)
	}
	if !m.window.add(s) {
		m.restart()
		m.window.add(s)
	}
	if m.window.size() >= m.target {
		m.cfg.Report(m.report(m.window.aggregate()))
		m.restart()
	}
}

func (m *Monitor) restart() {
	m.window = window{}
	m.target = m.cfg.Size
}

func (m *Monitor) report(usage *monitoringpb.AggregatedResourceUsage) *monitoringpb.ResourceUsageData {
	return &monitoringpb.ResourceUsageData{
		Scope:            m.cfg.Scope,
		Pid:              int64(m.cfg.PID),
		ProcessStartTime: timestamppb.New(m.cfg.Started),
		DataTimestamp:    timestamppb.Now(),
		ResourceUsage:    usage,
		DebugStatus:      debugStatus(m.cfg.PID),
		Version:          m.cfg.Version,
	}
}
