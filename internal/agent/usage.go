package agent

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/agent/monitor"
	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
)

// The agent measures itself half as often as it does services, so that an idle machine is woken once a minute and no more.
// Reports go out as often as the original's, every ten minutes.
const (
	ownSamplePeriod = time.Minute
	ownSampleSize   = 10
	// reportPatience is how long a report waits for room in the outbox before it is dropped.
	reportPatience = 30 * time.Second
)

// runUsage reports the agent's own resource usage until ctx ends.
func (a *Agent) runUsage(ctx context.Context) {
	if _, err := monitor.Read(os.Getpid()); errors.Is(err, monitor.ErrUnsupported) {
		return
	}
	own := a.host(systemService)
	monitor.New(monitor.Config{
		Scope:   systemService,
		PID:     os.Getpid(),
		Started: a.started,
		Period:  ownSamplePeriod,
		Size:    ownSampleSize,
		Report: func(data *monitoringpb.ResourceUsageData) {
			ctx, cancel := context.WithTimeout(ctx, reportPatience)
			defer cancel()
			if err := own.Report(ctx, typeResourceUsage, data); err != nil {
				glog.Warningf("resource usage is not reported: %v", err)
			}
		},
	}).Run(ctx)
}
