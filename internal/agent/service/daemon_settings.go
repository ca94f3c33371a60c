package service

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang/glog"
	"google.golang.org/protobuf/types/known/durationpb"

	daemonpb "github.com/farspeak/farspeak/proto/fleetspeak/daemonservice"
)

const (
	// defaultKillPeriod is the silence after which a process is killed when heartbeats are supervised and the period is
	// not configured. Zero would kill at once (G-43).
	defaultKillPeriod = 5 * time.Minute

	maxFlushBytes    = 1 << 20
	defaultFlushTime = time.Minute
)

// daemonSettings is what a Daemon's configuration says, with defaults in place.
type daemonSettings struct {
	argv       []string
	lazy       bool          // start only when there is a message
	inactivity time.Duration // stop after so long without a message in either direction; 0 is never
	usage      bool          // report resource usage
	sampling
	memoryLimit int64         // bytes; 0 is none
	heartbeats  bool          // kill when silent
	grace       time.Duration // before the first check
	killPeriod  time.Duration
	output      *outputSettings // nil: standard output and error go nowhere
	attached    bool            // they go where the agent's go
}

// outputSettings says where standard output and error go.
type outputSettings struct {
	service string // of the server
	bytes   int
	age     time.Duration
}

func readDaemonSettings(name string, c *daemonpb.Config) (daemonSettings, error) {
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return daemonSettings{}, errors.New("config: argv is empty")
	}
	s := daemonSettings{
		argv:        c.Argv,
		lazy:        c.LazyStart || c.InactivityTimeout != nil,
		inactivity:  max(0, c.InactivityTimeout.AsDuration()),
		usage:       !c.DisableResourceMonitoring,
		memoryLimit: max(0, c.MemoryLimit),
		heartbeats:  c.MonitorHeartbeats,
		output:      readOutputSettings(name, c.StdParams),
	}
	s.readPeriods(c)
	if size := c.ResourceMonitoringSampleSize; s.usage && size != 0 && size < 2 {
		return daemonSettings{}, fmt.Errorf("config: resource_monitoring_sample_size is %d, at least 2 are needed", size)
	}
	return s, nil
}

// readPeriods reads the durations that have an older form in seconds, which configurations of today still use.
func (s *daemonSettings) readPeriods(c *daemonpb.Config) {
	//lint:ignore SA1019 the older form counts where the other is not set
	grace, kill, sample := c.HeartbeatUnresponsiveGracePeriodSeconds, c.HeartbeatUnresponsiveKillPeriodSeconds, c.ResourceMonitoringSamplePeriodSeconds
	s.grace = period(c.HeartbeatUnresponsiveGracePeriod, grace, 0)
	s.killPeriod = period(c.HeartbeatUnresponsiveKillPeriod, kill, defaultKillPeriod)
	s.sampling = readSampling(c.ResourceMonitoringSampleSize, period(c.ResourceMonitoringSamplePeriod, sample, 0), s.memoryLimit == 0)
}

// period is a duration, or else its older form in seconds, or else what goes for unset.
func period(d *durationpb.Duration, seconds int32, unset time.Duration) time.Duration {
	switch {
	case d.AsDuration() > 0:
		return d.AsDuration()
	case seconds > 0:
		return time.Duration(seconds) * time.Second
	}
	return unset
}

func readOutputSettings(name string, p *daemonpb.Config_StdParams) *outputSettings {
	if p == nil {
		return nil
	}
	if p.ServiceName == "" {
		glog.Warningf("service %s: std_params name no service, the output is not forwarded", name)
		return nil
	}
	o := &outputSettings{service: p.ServiceName, bytes: int(p.FlushBytes), age: time.Duration(p.FlushTimeSeconds) * time.Second}
	if o.bytes <= 0 || o.bytes > maxFlushBytes {
		o.bytes = maxFlushBytes
	}
	if o.age <= 0 {
		o.age = defaultFlushTime
	}
	return o
}
