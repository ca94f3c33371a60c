package service

import (
	"context"
	"sync"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/agent/monitor"
	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
)

// usageReports are the reports about the process behind a connection: one series, however often it introduces itself.
type usageReports struct {
	cancel context.CancelFunc // nil when none run
	ended  sync.WaitGroup
}

// start begins to measure a process, in place of the one before. Servers insist on a start time; since the agent did not
// start the process, the system has to know it (G-26).
func (u *usageReports) start(ctx context.Context, s *socket, pid int, version string) {
	u.stop()
	started, err := monitor.StartTime(pid)
	if err != nil {
		glog.Warningf("service %s: process %d, as it calls itself, is not measured: %v", s.name, pid, err)
		return
	}
	ctx, u.cancel = context.WithCancel(ctx)
	m := monitor.New(monitor.Config{
		Scope:   s.name,
		PID:     pid,
		Version: version,
		Started: started,
		Period:  s.settings.period,
		Size:    s.settings.size,
		Report:  func(data *monitoringpb.ResourceUsageData) { reportUsage(ctx, s.name, s.host, data) },
	})
	u.ended.Go(func() { m.Run(ctx) })
}

// stop ends the reports.
func (u *usageReports) stop() {
	if u.cancel == nil {
		return
	}
	u.cancel()
	u.ended.Wait()
	u.cancel = nil
}
