package main

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/windows/svc"
)

// manager stands for the service manager.
type manager struct {
	requests chan svc.ChangeRequest
	states   chan svc.Status
	code     chan uint32
}

// startManaged starts a service and sees it run.
func startManaged(t *testing.T, s *managedService) *manager {
	t.Helper()
	m := &manager{make(chan svc.ChangeRequest), make(chan svc.Status), make(chan uint32, 1)}
	go func() { // ends with the service
		_, code := s.Execute(nil, m.requests, m.states)
		m.code <- code
	}()
	if got := <-m.states; got.State != svc.StartPending {
		t.Fatalf("first state is %v", got)
	}
	if got := <-m.states; got.State != svc.Running || got.Accepts != svc.AcceptStop|svc.AcceptShutdown|svc.AcceptParamChange {
		t.Fatalf("second state is %v", got)
	}
	return m
}

func untilStopped(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func TestManagerStopsAndReloads(t *testing.T) {
	for _, cmd := range []svc.Cmd{svc.Stop, svc.Shutdown} {
		hangups := make(chan struct{}, 1)
		s := newManagedService(untilStopped, func(context.Context) { hangups <- struct{}{} })
		m := startManaged(t, s)
		m.requests <- svc.ChangeRequest{Cmd: svc.Interrogate, CurrentStatus: svc.Status{State: svc.Running}}
		if got := <-m.states; got.State != svc.Running {
			t.Errorf("state is %v", got)
		}
		m.requests <- svc.ChangeRequest{Cmd: svc.ParamChange}
		<-hangups
		m.requests <- svc.ChangeRequest{Cmd: cmd}
		if got := <-m.states; got.State != svc.StopPending || got.WaitHint == 0 {
			t.Errorf("state is %v", got)
		}
		if code := <-m.code; code != 0 || s.outcome(nil) != nil {
			t.Errorf("exit code %d", code)
		}
	}
}

// A service that fails is not reported as stopped, so that the manager restarts it; one that fails at its stop is.
func TestManagedServiceFails(t *testing.T) {
	failure := errors.New("failure")
	alone := newManagedService(func(context.Context) error { return failure }, nil)
	m := startManaged(t, alone)
	if err := <-alone.failed; !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
	select {
	case code := <-m.code:
		t.Errorf("it is reported as stopped, with code %d", code)
	case got := <-m.states:
		t.Errorf("it is reported as %v", got)
	default:
	}
	stopped := newManagedService(func(ctx context.Context) error {
		<-ctx.Done()
		return failure
	}, nil)
	m = startManaged(t, stopped)
	m.requests <- svc.ChangeRequest{Cmd: svc.Stop}
	<-m.states
	if code := <-m.code; code != 1 || !errors.Is(stopped.outcome(nil), failure) {
		t.Errorf("exit code %d", code)
	}
}
