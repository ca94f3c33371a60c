//go:build unix

package service_test

import (
	"os"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/agent/service"
	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
	socketpb "github.com/farspeak/farspeak/proto/fleetspeak/socketservice"
)

// Reports have the start time that the server insists on. // G-26
func TestSocketResourceReports(t *testing.T) {
	t.Parallel()
	usage := func(t *testing.T, config *socketpb.Config) (*desk, *rawPeer) {
		d := newDesk()
		config.ApiProxyPath = socketPath(t)
		config.ResourceMonitoringSampleSize, config.ResourceMonitoringSamplePeriodSeconds = 2, 1
		startSocket(t, d, config, service.Timing{})
		p, _ := connect(t, config.ApiProxyPath)
		return d, p
	}
	t.Run("enabled", func(t *testing.T) {
		d, _ := usage(t, &socketpb.Config{})
		var report *monitoringpb.ResourceUsageData
		d.await(t, "report", func() bool {
			for _, report = range d.usageLocked(func(*monitoringpb.ResourceUsageData) bool { return true }) {
				return true
			}
			return false
		})
		if report.Scope != "walrus" || int(report.Pid) != os.Getpid() || report.Version != "0.9" || report.ProcessTerminated ||
			report.ResourceUsage.GetMeanResidentMemory() < 1<<20 {
			t.Errorf("report is %v", report)
		}
		if age := time.Since(report.ProcessStartTime.AsTime()); age < 0 || age > time.Hour {
			t.Errorf("the process is %v old", age)
		}
	})
	t.Run("disabled", func(t *testing.T) {
		d, p := usage(t, &socketpb.Config{DisableResourceMonitoring: true})
		sendNumbered(t, p, "after", 50)
		d.next(t, 0)
		if n := len(d.reports); n != 0 {
			t.Errorf("%d reports", n)
		}
	})
}
