package service

import (
	"context"
	"time"

	"github.com/golang/glog"
	"google.golang.org/protobuf/types/known/timestamppb"

	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
)

// reportPatience is how long a report waits for room in the outbox before it is dropped.
const reportPatience = 30 * time.Second

// reportUsage sends a report on resource usage. It waits for room, though not long once ctx has ended.
func reportUsage(ctx context.Context, name string, host Host, data *monitoringpb.ResourceUsageData) {
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportPatience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(farewell, cancel) })
	defer stop()
	if err := host.Report(wait, usageType, data); err != nil {
		glog.Warningf("service %s: resource usage is not reported: %v", name, err)
	}
}

// reportEnd sends the last report of a process, which says that it has ended and nothing else.
func (c *child) reportEnd(ctx context.Context) {
	if !c.settings.usage {
		return
	}
	reportUsage(ctx, c.name, c.host, &monitoringpb.ResourceUsageData{
		Scope:             c.name,
		Pid:               int64(c.pid()),
		ProcessStartTime:  timestamppb.New(c.started),
		DataTimestamp:     timestamppb.Now(),
		ResourceUsage:     &monitoringpb.AggregatedResourceUsage{}, // servers insist on it
		ProcessTerminated: true,
	})
}
