package service

import (
	"context"
	"sync"
	"time"

	"github.com/golang/glog"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/agent/monitor"
	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
)

// Messages of the agent about a service.
const (
	usageType = "ResourceUsage"
	killType  = "KillNotification"
)

// killNoticeWait is how long a full outbox may hold up a kill.
const killNoticeWait = time.Second

// supervised is the process that supervise measures and kills.
type supervised struct {
	*child
	pid      int
	sending  context.Context // for notifications: it outlasts the process
	notified bool            // the server knows of the kill, or cannot be told
	killing  sync.Mutex
}

// supervise measures the process and looks after its heartbeats until ctx ends. Each does without the other (G-43). It
// begins when the process has said who it is, or has had the time to.
func (c *child) supervise(ctx, sending context.Context) {
	measure := c.settings.usage || c.settings.memoryLimit > 0
	if !measure && !c.settings.heartbeats {
		return
	}
	timer := time.NewTimer(c.timing.startupWait)
	defer timer.Stop()
	select {
	case <-c.startup.come:
	case <-timer.C:
	case <-ctx.Done():
		return
	}
	pid, version := c.startup.read()
	s := &supervised{child: c, pid: c.measuredPID(pid), sending: sending}
	var both sync.WaitGroup
	if measure {
		both.Go(func() { s.measure(ctx, version) })
	}
	if c.settings.heartbeats {
		both.Go(func() { s.watchHeartbeats(ctx) })
	}
	both.Wait()
}

// measure takes samples until ctx ends. Each is held against the memory limit; reports go to the server unless they are
// disabled.
func (s *supervised) measure(ctx context.Context, version string) {
	monitor.New(monitor.Config{
		Scope:   s.name,
		PID:     s.pid,
		Version: version,
		Started: s.started,
		Period:  s.settings.period,
		Size:    s.settings.size,
		Sampled: func(sample monitor.Sample) {
			if limit := s.settings.memoryLimit; limit > 0 && sample.Resident >= limit {
				s.kill(ctx, monitoringpb.KillNotification_MEMORY_EXCEEDED)
			}
		},
		Report: func(data *monitoringpb.ResourceUsageData) {
			if s.settings.usage {
				reportUsage(ctx, s.name, s.host, data)
			}
		},
	}).Run(ctx)
}

// kill tells the server and ends the process. It may be called again when that did not help.
func (s *supervised) kill(ctx context.Context, reason monitoringpb.KillNotification_Reason) {
	s.killing.Lock()
	defer s.killing.Unlock()
	if ctx.Err() != nil {
		return // the process has ended meanwhile
	}
	glog.Warningf("service %s: process %d is killed: %v", s.name, s.pid, reason)
	notice := s.notice(reason)
	if !s.notified {
		s.notified = s.notify(notice, killNoticeWait) == nil
	}
	if s.pid != s.child.pid() && belongsTo(s.pid, s.child.pid()) {
		killProcess(s.pid)
	}
	s.group.kill()
	if !s.notified {
		s.notified = true
		if err := s.notify(notice, reportPatience); err != nil {
			glog.Warningf("service %s: the kill is not reported: %v", s.name, err)
		}
	}
}

func (s *supervised) notice(reason monitoringpb.KillNotification_Reason) *monitoringpb.KillNotification {
	_, version := s.startup.read()
	return &monitoringpb.KillNotification{
		Service:          s.name,
		Pid:              int64(s.pid),
		Version:          version,
		ProcessStartTime: timestamppb.New(s.started),
		KilledWhen:       timestamppb.Now(),
		Reason:           reason,
	}
}

func (s *supervised) notify(notice *monitoringpb.KillNotification, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(s.sending, wait)
	defer cancel()
	return s.host.Report(ctx, killType, notice)
}
