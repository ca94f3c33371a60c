package crew_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/farspeak/farspeak/internal/crew"
)

// Each task runs, once, and before Close returns.
func TestEveryTaskRuns(t *testing.T) {
	const starters, each = 8, 1000
	c := crew.New(4)
	var ran atomic.Int64
	var started sync.WaitGroup
	for range starters {
		started.Go(func() {
			for range each {
				c.Start(func() { ran.Add(1) })
			}
		})
	}
	started.Wait()
	c.Close()
	if got := ran.Load(); got != starters*each {
		t.Errorf("%d tasks ran, want %d", got, starters*each)
	}
}

// However many tasks block, the next one does not wait for them.
func TestNoTaskWaitsForAnother(t *testing.T) {
	c := crew.New(1)
	defer c.Close()
	release := make(chan struct{})
	defer close(release)
	for range 100 {
		c.Start(func() { <-release })
	}
	ran := make(chan struct{})
	c.Start(func() { close(ran) })
	<-ran
}

// Goroutines that are free are used again: the one that was busy last comes first, and those beyond the bound go.
func TestGoroutinesAreUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const stay, burst = 3, 10
		before := runtime.NumGoroutine()
		c := crew.New(stay)
		release := make(chan struct{})
		for range burst {
			c.Start(func() { <-release })
		}
		synctest.Wait()
		if extra := runtime.NumGoroutine() - before; extra != burst {
			t.Errorf("%d goroutines for %d tasks", extra, burst)
		}
		close(release)
		synctest.Wait()
		for range 100 {
			c.Start(func() {})
			synctest.Wait()
			if extra := runtime.NumGoroutine() - before; extra != stay {
				t.Fatalf("%d goroutines stay, want %d", extra, stay)
			}
		}
		c.Close()
		synctest.Wait()
		if extra := runtime.NumGoroutine() - before; extra != 0 {
			t.Errorf("%d goroutines are left after Close", extra)
		}
	})
}

// Close waits for tasks, and nothing starts after it.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := crew.New(2)
		var ended atomic.Bool
		release := make(chan struct{})
		c.Start(func() { <-release; ended.Store(true) })
		closed := make(chan struct{})
		go func() { c.Close(); close(closed) }()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close returned before a task did")
		default:
		}
		close(release)
		<-closed
		if !ended.Load() {
			t.Error("the task did not end")
		}
		c.Start(func() { t.Error("a task ran after Close") })
		synctest.Wait()
	})
}

// A task may start others, also while the crew is being closed.
func TestTaskThatStartsTasks(t *testing.T) {
	c := crew.New(2)
	var ran atomic.Int64
	for range 100 {
		c.Start(func() {
			ran.Add(1)
			c.Start(func() { ran.Add(1) })
		})
	}
	c.Close()
	if got := ran.Load(); got < 100 || got > 200 {
		t.Errorf("%d tasks ran, want 100 to 200", got)
	}
}

// sink keeps what deep computes.
var sink atomic.Int64

// deep needs a stack of more than 8 KiB.
//
//go:noinline
func deep(seed byte) int64 {
	var frame [8 << 10]byte
	frame[int(seed)] = seed
	return int64(frame[len(frame)-1-int(seed)])
}

// BenchmarkDeepTask compares the crew with a goroutine for each task, where tasks need more than the first stack.
func BenchmarkDeepTask(b *testing.B) {
	c := crew.New(16)
	b.Cleanup(c.Close)
	for name, start := range map[string]func(func()){"crew": c.Start, "fresh": func(task func()) { go task() }} {
		b.Run(name, func(b *testing.B) {
			done := make(chan struct{})
			for b.Loop() {
				start(func() { sink.Add(deep(1)); done <- struct{}{} })
				<-done
			}
		})
	}
}
