//go:build unix

package service_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/agent/service"
	daemonpb "github.com/farspeak/farspeak/proto/fleetspeak/daemonservice"
	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
)

func awaitKill(t *testing.T, d *desk) *monitoringpb.KillNotification {
	t.Helper()
	d.await(t, "KillNotification", func() bool { return len(d.killsLocked()) > 0 })
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.killsLocked()[0]
}

func TestDaemonMemoryLimit(t *testing.T) {
	t.Parallel()
	for name, disabled := range map[string]bool{"with reports": false, "without reports": true} { // G-43
		t.Run(name, func(t *testing.T) {
			d := newDesk()
			before := time.Now()
			svc := startDaemon(t, d, &daemonpb.Config{
				Argv: argv(t, "hog"), MemoryLimit: 200 << 20, DisableResourceMonitoring: disabled,
				ResourceMonitoringSamplePeriod: durationOf(20 * time.Millisecond),
			}, service.Timing{})
			notice := awaitKill(t, d)
			if notice.Service != "walrus" || notice.Version != "hungry" || notice.Reason != monitoringpb.KillNotification_MEMORY_EXCEEDED {
				t.Errorf("notification is %v", notice)
			}
			if started, killed := notice.ProcessStartTime.AsTime(), notice.KilledWhen.AsTime(); started.Before(before) || killed.Before(started) {
				t.Errorf("killed at %v, started at %v", killed, started)
			}
			waitGone(t, int(notice.Pid))
			state := svc.(service.Stater)
			poll(t, "end", func() bool { return state.State().PID == 0 }, func() string { return "" })
			checkReports(t, d, disabled)
		})
	}
}

// checkReports looks at what the server learned about a process that has ended.
func checkReports(t *testing.T, d *desk, disabled bool) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.killsLocked()); n != 1 {
		t.Errorf("%d notifications, want 1", n)
	}
	last := d.usageLocked(func(u *monitoringpb.ResourceUsageData) bool { return u.ProcessTerminated })
	if disabled {
		if n := len(d.reports); n != 1 {
			t.Errorf("%d reports, want the notification only", n)
		}
		return
	}
	if len(last) != 1 || last[0].Scope != "walrus" || last[0].ResourceUsage == nil || last[0].DataTimestamp == nil ||
		last[0].ProcessStartTime == nil || last[0].Version != "" || last[0].DebugStatus != "" {
		t.Errorf("last reports are %v", last)
	}
}

func TestDaemonHeartbeats(t *testing.T) {
	t.Parallel()
	times := service.Timing{Recheck: 50 * time.Millisecond}
	config := func(behaviour ...string) *daemonpb.Config {
		return &daemonpb.Config{
			Argv: argv(t, behaviour...), MonitorHeartbeats: true, DisableResourceMonitoring: true, // G-43
			HeartbeatUnresponsiveGracePeriod: durationOf(100 * time.Millisecond),
			HeartbeatUnresponsiveKillPeriod:  durationOf(time.Second),
		}
	}
	t.Run("lost", func(t *testing.T) {
		d := newDesk()
		svc := startDaemon(t, d, config("silent"), times)
		notice := awaitKill(t, d)
		if notice.Reason != monitoringpb.KillNotification_HEARTBEAT_FAILURE || notice.Version != "0.7" || notice.Service != "walrus" {
			t.Errorf("notification is %v", notice)
		}
		if age := notice.KilledWhen.AsTime().Sub(notice.ProcessStartTime.AsTime()); age < time.Second {
			t.Errorf("killed after %v", age)
		}
		waitGone(t, int(notice.Pid))
		state := svc.(service.Stater)
		poll(t, "end", func() bool { return state.State().PID == 0 }, func() string { return "" })
	})
	t.Run("kept", func(t *testing.T) {
		d := newDesk()
		startDaemon(t, d, config("beating", "100"), times) // for 2 s
		d.find(t, "Alive")
		d.mu.Lock()
		defer d.mu.Unlock()
		if kills := d.killsLocked(); len(kills) != 0 {
			t.Errorf("killed: %v", kills)
		}
	})
	t.Run("suspended while the outbox is full", func(t *testing.T) {
		d := newDesk()
		d.setFull(true)
		svc := startDaemon(t, d, config("number", "1000"), times)
		state := svc.(service.Stater)
		poll(t, "start", func() bool { return state.State().PID != 0 }, func() string { return "" })
		pid := state.State().PID
		<-time.After(2 * time.Second) // well above the kill period
		d.setFull(false)
		d.next(t, 999)
		if got := state.State().PID; got != pid {
			t.Errorf("process %d was replaced by %d: %+v", pid, got, state.State())
		}
	})
}

// Unset periods do not kill at once. // G-43
func TestDaemonHeartbeatDefaults(t *testing.T) {
	s, err := service.ReadDaemonSettings("walrus", &daemonpb.Config{Argv: []string{"x"}, MonitorHeartbeats: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := service.HeartbeatsOf(s); got != [2]time.Duration{0, 5 * time.Minute} {
		t.Errorf("grace and kill period are %v", got)
	}
	s, err = service.ReadDaemonSettings("walrus", &daemonpb.Config{
		Argv: []string{"x"},
		//lint:ignore SA1019 the older form counts where the other is not set
		HeartbeatUnresponsiveGracePeriodSeconds: 3, HeartbeatUnresponsiveKillPeriodSeconds: 4,
		HeartbeatUnresponsiveKillPeriod: durationOf(1500 * time.Millisecond),
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := service.HeartbeatsOf(s); got != [2]time.Duration{3 * time.Second, 1500 * time.Millisecond} {
		t.Errorf("grace and kill period are %v", got)
	}
}

// A process may say that it is one of its own descendants, and nothing else. // G-18
func TestDaemonBelievesNoForeignPID(t *testing.T) {
	t.Parallel()
	for name, claimed := range map[string]string{
		"the agent": strconv.Itoa(os.Getpid()), "init": "1", "none": "0", "negative": "-1", "out of range": "1099511627776",
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk()
			svc := startDaemon(t, d, &daemonpb.Config{
				Argv: argv(t, "claim", claimed), MonitorHeartbeats: true,
				HeartbeatUnresponsiveKillPeriod: durationOf(10 * time.Millisecond),
			}, service.Timing{Recheck: 10 * time.Millisecond})
			notice := awaitKill(t, d)
			if strconv.Itoa(int(notice.Pid)) == claimed || notice.Pid <= 1 {
				t.Errorf("process %d was to be killed", notice.Pid)
			}
			state := svc.(service.Stater)
			poll(t, "end", func() bool { return state.State().PID == 0 }, func() string { return "" })
		})
	}
}

func TestDaemonResourceReports(t *testing.T) {
	t.Parallel()
	d := newDesk()
	startDaemon(t, d, &daemonpb.Config{
		Argv: argv(t, "orphan", "silent"), ResourceMonitoringSampleSize: 2, ResourceMonitoringSamplePeriod: durationOf(20 * time.Millisecond),
	}, service.Timing{})
	d.await(t, "reports", func() bool {
		return len(d.usageLocked(func(*monitoringpb.ResourceUsageData) bool { return true })) >= 2
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	first := d.usageLocked(func(*monitoringpb.ResourceUsageData) bool { return true })[0]
	if first.Scope != "walrus" || first.Version != "0.7" || first.ProcessTerminated || first.ResourceUsage.GetMaxResidentMemory() < 1<<20 ||
		first.ProcessStartTime == nil || first.DataTimestamp == nil || first.DebugStatus == "" || int(first.Pid) == os.Getpid() {
		t.Errorf("report is %v", first)
	}
}

func TestDaemonWithoutStartupDataIsMeasured(t *testing.T) {
	d := newDesk()
	times := service.Timing{StartupWait: 10 * time.Millisecond}
	svc := startDaemon(t, d, &daemonpb.Config{
		Argv: argv(t, "late"), ResourceMonitoringSampleSize: 2, ResourceMonitoringSamplePeriod: durationOf(10 * time.Millisecond),
	}, times)
	var report *monitoringpb.ResourceUsageData
	d.await(t, "report", func() bool {
		for _, report = range d.usageLocked(func(*monitoringpb.ResourceUsageData) bool { return true }) {
			return true
		}
		return false
	})
	if report.Version != "" || int(report.Pid) != svc.(service.Stater).State().PID {
		t.Errorf("report is %v", report)
	}
}

func TestBelongsTo(t *testing.T) {
	self, parent := os.Getpid(), os.Getppid()
	for name, tt := range map[string]struct {
		pid, leader int
		want        bool
	}{
		"itself":     {self, self, true},
		"child":      {self, parent, true},
		"parent":     {parent, self, false},
		"init":       {1, self, false},
		"nobody":     {1 << 30, self, false},
		"number one": {self, 1 << 30, false},
	} {
		if got := service.BelongsTo(tt.pid, tt.leader); got != tt.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}
