package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/agent"
	"github.com/farspeak/farspeak/internal/daemon/run"
	"github.com/farspeak/farspeak/internal/daemon/systemd"
)

const (
	// stopTimeout is how long an orderly stop may take before the process ends anyway.
	stopTimeout = 10 * time.Second
	// reloadTimeout is the same for the stop of an instance before its configuration is read again.
	reloadTimeout = time.Minute
)

// Exit codes beside 0 and 1.
const (
	codeLonely = 2
	codeDie    = 7
)

// process runs one agent after the other: a new one for each SIGHUP.
type process struct {
	options *options
	reload  chan struct{} // holds a token when the configuration is to be read again
}

func newProcess(o *options) *process { return &process{options: o, reload: make(chan struct{}, 1)} }

// hangup asks for a reload.
func (p *process) hangup(context.Context) {
	select {
	case p.reload <- struct{}{}:
	default: // one is due already, and reads what is there then
	}
}

// superviseInstances runs agents until ctx ends or one of them has a reason to end the process.
func (p *process) superviseInstances(ctx context.Context) error {
	for {
		again, err := p.runInstance(ctx)
		if !again {
			tell(systemd.Stopping(""))
			return p.exit(err)
		}
		glog.Info("reading the configuration again")
	}
}

// runInstance runs one agent. again says that a reload ended it.
func (p *process) runInstance(parent context.Context) (again bool, err error) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	stalled := make(chan string, 1)
	a, err := newAgent(p.options, func(kind string) { stalled <- kind })
	if err != nil {
		return false, err
	}
	glog.Infof("fs-client %s starts as client %v", run.ReadBuild(), a.ID())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }() // waited for below, or given up together with the process
	tell(systemd.Ready("client " + a.ID().String()))

	select {
	case err := <-done:
		return false, err
	case kind := <-stalled:
		return false, p.reportStall(kind)
	case <-p.reload:
		tell(systemd.Status("reading the configuration again"))
		cancel()
		return p.awaitStop(done, reloadTimeout)
	case <-parent.Done():
		_, err := p.awaitStop(done, stopTimeout)
		return false, err
	}
}

// tell takes the outcome of a notice to systemd, without which the agent works as well.
func tell(err error) {
	if err != nil {
		glog.Warning(err)
	}
}

// awaitStop waits for an instance that was told to stop.
func (p *process) awaitStop(done <-chan error, patience time.Duration) (ended bool, err error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-done:
		return err == nil, err
	case <-timer.C:
		err := fmt.Errorf("the agent did not stop within %v", patience)
		return false, errors.Join(err, p.dumpGoroutines(p.profileName("goroutine")))
	}
}

// exit gives an error its exit code.
func (p *process) exit(err error) error {
	switch {
	case errors.Is(err, agent.ErrDie):
		return run.WithCode(codeDie, err)
	case errors.Is(err, agent.ErrLonely):
		writeGoroutines(os.Stderr)
		return run.WithCode(codeLonely, err)
	}
	return err
}

// reportStall leaves behind what the goroutines were doing.
func (p *process) reportStall(kind string) error {
	path, err := p.stallName(kind)
	if err == nil {
		err = p.dumpGoroutines(path)
	}
	return errors.Join(fmt.Errorf("the %s communicator hangs, its goroutines are in %s", kind, path), err)
}
