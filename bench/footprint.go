package main

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/procfs"
)

// lookEvery is how often a process is looked at. What wakes it in one such time, and in the next, counts as one wake-up.
const lookEvery = 100 * time.Millisecond

// footprint is what a process costs its machine while it has nothing to do.
type footprint struct {
	resident, anonymous, proportional uint64 // bytes; the most that was seen

	took     time.Duration
	cpu      time.Duration
	wakeUps  []time.Duration // when it woke up, from the start
	switches uint64          // times that a thread gave its core up to wait
	threads  int
}

// watch looks at a process for a time. It does not touch it.
func watch(ctx context.Context, pid int, length time.Duration) (footprint, error) {
	var f footprint
	first, err := readActivity(pid)
	if err != nil {
		return f, err
	}
	began, last, awake := time.Now(), first, false
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for f.took < length {
		select {
		case <-ctx.Done():
			return f, context.Cause(ctx)
		case <-ticker.C:
		}
		now, err := readActivity(pid)
		if err != nil {
			return f, err
		}
		f.took = time.Since(began)
		stirred := now.switches != last.switches
		if stirred && !awake {
			f.wakeUps = append(f.wakeUps, f.took)
		}
		awake, last = stirred, now
		if err := f.measure(pid); stirred && err != nil {
			return f, err
		}
	}
	f.cpu, f.switches, f.threads = last.cpu-first.cpu, last.switches-first.switches, last.threads
	return f, f.measure(pid)
}

// measure notes the memory.
func (f *footprint) measure(pid int) error {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	status, err := p.NewStatus()
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	shares, err := p.ProcSMapsRollup()
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	f.resident, f.anonymous = max(f.resident, status.VmRSS), max(f.anonymous, status.RssAnon)
	f.proportional = max(f.proportional, shares.Pss)
	return nil
}

// shortestGap is the shortest time between two wake-ups; 0 when there were not two.
func (f *footprint) shortestGap() (shortest time.Duration) {
	for i := 1; i < len(f.wakeUps); i++ {
		if gap := f.wakeUps[i] - f.wakeUps[i-1]; shortest == 0 || gap < shortest {
			shortest = gap
		}
	}
	return shortest
}

// activity is what the threads of a process did since they were started.
type activity struct {
	cpu      time.Duration
	switches uint64
	threads  int
}

// readActivity adds the threads up. The kernel counts the process as a whole in hundredths of a second only.
func readActivity(pid int) (activity, error) {
	var a activity
	threads, err := procfs.AllThreads(pid)
	if err != nil {
		return a, fmt.Errorf("threads of process %d: %w", pid, err)
	}
	for _, t := range threads {
		status, err := t.NewStatus()
		if err != nil {
			return a, fmt.Errorf("thread %d: %w", t.PID, err)
		}
		schedule, err := t.Schedstat()
		if err != nil {
			return a, fmt.Errorf("thread %d: %w", t.PID, err)
		}
		a.switches += status.VoluntaryCtxtSwitches
		a.cpu += time.Duration(schedule.RunningNanoseconds)
	}
	a.threads = len(threads)
	return a, nil
}
