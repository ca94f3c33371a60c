package monitor_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/farspeak/farspeak/internal/agent/monitor"
	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
)

// steady is a process that uses 100 ms of user and 50 ms of system time each second.
func steady(start time.Time) func(int) (monitor.Sample, error) {
	return func(int) (monitor.Sample, error) {
		age := time.Since(start)
		return monitor.Sample{At: time.Now(), User: age / 10, System: age / 20, Resident: 1 << 20, Descriptors: 7}, nil
	}
}

func TestReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		var at []time.Duration
		var last *monitoringpb.ResourceUsageData
		m := monitor.New(monitor.Config{Scope: "walrus", PID: 42, Version: "1", Started: start, Zero: start, Read: steady(start),
			Report: func(d *monitoringpb.ResourceUsageData) {
				at = append(at, time.Since(start))
				last = d
			}})
		go m.Run(ctx)
		time.Sleep(21 * time.Minute) // of the bubble's clock
		cancel()
		synctest.Wait()

		// 24 samples: after 1, 3, 7, 15, 31 s, then at each full 30 s from 60 s on; later reports are 20 samples apart.
		want := []time.Duration{10 * time.Minute, 20 * time.Minute}
		if len(at) != 2 || at[0] != want[0] || at[1] != want[1] {
			t.Fatalf("reports after %v, want %v", at, want)
		}
		u := last.ResourceUsage
		if u.MeanUserCpuRate < 99.9 || u.MeanUserCpuRate > 100.1 || u.MaxSystemCpuRate > 50.1 || u.MeanResidentMemory != 1<<20 ||
			u.MaxResidentMemory != 1<<20 || u.MeanNumFds != 7 || u.MaxNumFds != 7 {
			t.Errorf("usage is %v", u)
		}
		if last.Scope != "walrus" || last.Pid != 42 || last.Version != "1" || !last.ProcessStartTime.AsTime().Equal(start) {
			t.Errorf("report is %v", last)
		}
	})
}

// Processes that were started at different times are looked at in the same moments, so that their agent wakes up once for
// all of them. A new one is looked at more often, and never twice within half a period of the common beat.
func TestCommonBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		zero := time.Now().Add(3 * time.Hour) // it may lie ahead
		var running sync.WaitGroup
		looks := make([][]time.Duration, 3)
		for i := range looks {
			start := time.Now()
			m := monitor.New(monitor.Config{Period: time.Minute, Started: start, Zero: zero, Read: steady(start),
				Sampled: func(monitor.Sample) { looks[i] = append(looks[i], time.Since(zero)) },
				Report:  func(*monitoringpb.ResourceUsageData) {}})
			running.Go(func() { m.Run(ctx) })
			time.Sleep(11 * time.Second)
		}
		time.Sleep(10 * time.Minute)
		cancel()
		running.Wait()
		for i, times := range looks {
			const quick = 6 // after 1, 2, 4, 8, 16, 32 s
			if len(times) < quick+8 {
				t.Fatalf("process %d was looked at %d times", i, len(times))
			}
			for j, at := range times[quick:] {
				if at%time.Minute != 0 {
					t.Errorf("process %d was looked at %v off the beat", i, at%time.Minute)
				}
				if gap := at - times[quick+j-1]; gap < 30*time.Second || gap > 90*time.Second {
					t.Errorf("process %d was looked at again after %v", i, gap)
				}
			}
		}
	})
}

func TestWindowStartsAgainAfterAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		start, reads, reports := time.Now(), 0, []int{}
		read := steady(start)
		m := monitor.New(monitor.Config{Size: 3, Period: time.Second, Zero: start, Read: func(pid int) (monitor.Sample, error) {
			if reads++; reads == 2 {
				return monitor.Sample{}, errors.New("gone")
			}
			return read(pid)
		}, Report: func(*monitoringpb.ResourceUsageData) { reports = append(reports, reads) }})
		go m.Run(ctx)
		time.Sleep(8*time.Second + time.Millisecond)
		cancel()
		synctest.Wait()
		if len(reports) != 2 || reports[0] != 5 || reports[1] != 8 {
			t.Errorf("reports after samples %v, want 5 and 8", reports)
		}
	})
}
