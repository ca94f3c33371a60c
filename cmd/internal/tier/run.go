package tier

import (
	"context"
	"errors"
	"fmt"

	"github.com/golang/glog"
	"golang.org/x/sync/errgroup"

	"github.com/farspeak/farspeak/cmd/internal/database"
	"github.com/farspeak/farspeak/internal/daemon/systemd"
	"github.com/farspeak/farspeak/internal/retention"
)

// Work is what a daemon does between Open and Close.
type Work struct {
	// Serve does what the daemon is for until its context ends or it cannot go on, and then ends in its own time. It calls
	// Serving when it does.
	Serve func(context.Context) error
	// Jobs run beside it, and on until it has returned, because what is ending still needs them.
	Jobs []Job
	// Ending says what systemd shows of a daemon that was told to stop.
	Ending string
}

// Job is something that runs until its context ends. If it returns an error before, the daemon ends with that.
type Job struct {
	Name string // in the error
	Run  func(context.Context) error
}

// Run does the work until ctx ends or a part of it fails. It returns when all of it has ended.
func (t *Tier) Run(ctx context.Context, work Work) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	jobsCtx, stopJobs := context.WithCancel(context.WithoutCancel(ctx))
	defer stopJobs()
	var jobs errgroup.Group
	for _, job := range append(t.jobs(), work.Jobs...) {
		jobs.Go(func() error {
			if err := job.Run(jobsCtx); err != nil && jobsCtx.Err() == nil {
				fail(fmt.Errorf("%s: %w", job.Name, err))
			}
			return nil
		})
	}
	undo := context.AfterFunc(ctx, func() { t.ending(work.Ending) })
	defer undo()

	err := work.Serve(ctx)
	stopJobs()
	_ = jobs.Wait() // failures came as the cause of ctx
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// jobs are those of every daemon on a store.
func (t *Tier) jobs() []Job {
	pruning := retention.New(retention.Config{
		Store: t.Store, Retention: database.Retention(t.retention), Registerer: t.Registry,
	})
	return []Job{
		{"retention", pruning.Run},
		{"watchdog", func(ctx context.Context) error {
			return systemd.Watchdog(ctx, func(context.Context) error { return nil })
		}},
	}
}

// Serving says that the daemon does what it is for from now on, for whom and where.
func (t *Tier) Serving(what string) {
	t.Health.Started()
	glog.Info(what)
	if err := systemd.Ready("serving"); err != nil {
		glog.Warning(err)
	}
}

func (t *Tier) ending(how string) {
	t.Health.Drain()
	if err := systemd.Stopping(how); err != nil {
		glog.Warning(err)
	}
}
