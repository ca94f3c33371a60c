package main

import (
	"context"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/golang/glog"
	"golang.org/x/sys/windows/svc"
)

// managedName is what the original calls itself to the service manager, which looks at it only in processes of several
// services: ours may be registered under any name.
const managedName = "FleetspeakService"

// serveManaged runs the process as the service manager wants it, if that has started it, else until ctx ends.
func (p *process) serveManaged(ctx context.Context) error {
	managed, err := svc.IsWindowsService()
	if err != nil {
		return fmt.Errorf("find out whether this is a service: %w", err)
	}
	if !managed || p.options.check || p.options.status {
		return p.serve(ctx)
	}
	// To a service SIGTERM would also mean that some user has logged off. The manager tells what there is to tell.
	signal.Reset(syscall.SIGINT, syscall.SIGTERM)
	s := newManagedService(p.serve, p.hangup)
	dispatched := make(chan error, 1)
	go func() { // waited for below, unless the service failed: see Execute
		dispatched <- svc.Run(managedName, s)
	}()
	select {
	case err := <-s.failed:
		return err
	case err := <-dispatched:
		return s.outcome(err)
	}
}

// managedService translates between the service manager and a process.
type managedService struct {
	serve  func(context.Context) error
	hangup func(context.Context)
	failed chan error // holds why serve ended, if not for a stop
}

var _ svc.Handler = (*managedService)(nil)

func newManagedService(serve func(context.Context) error, hangup func(context.Context)) *managedService {
	return &managedService{serve: serve, hangup: hangup, failed: make(chan error, 1)}
}

// outcome is the error of the process rather than that of the talk with the manager.
func (s *managedService) outcome(err error) error {
	select {
	case failure := <-s.failed:
		return failure
	default:
		return err
	}
}

// Execute implements svc.Handler. Stop and shutdown end the process in order; a change of parameters has it read its
// configuration again. When the process ends for another reason, Execute does not return: the manager restarts a service
// only if its process is gone without a word, and that is what happens next.
func (s *managedService) Execute(_ []string, requests <-chan svc.ChangeRequest, states chan<- svc.Status) (specific bool, code uint32) {
	states <- svc.Status{State: svc.StartPending}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- s.serve(ctx) }() // waited for below
	states <- svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown | svc.AcceptParamChange}
	for {
		select {
		case err := <-done:
			return false, s.ended(ctx, err)
		case request := <-requests:
			switch request.Cmd {
			case svc.Interrogate:
				states <- request.CurrentStatus
			case svc.ParamChange:
				s.hangup(ctx)
			case svc.Stop, svc.Shutdown:
				glog.Info("the service manager stops the agent")
				states <- svc.Status{State: svc.StopPending, WaitHint: uint32((stopTimeout + time.Second).Milliseconds())}
				stop()
			}
		}
	}
}

// ended returns the exit code of a service that was told to stop, and blocks one that was not for as long as its process
// lives.
func (s *managedService) ended(ctx context.Context, err error) (code uint32) {
	if err == nil {
		return 0
	}
	s.failed <- err
	if ctx.Err() == nil {
		select {}
	}
	return 1
}
