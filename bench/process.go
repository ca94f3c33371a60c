package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// stopTimeout is how long a process may take to end in order.
const stopTimeout = time.Minute

// process is a running program of the installation.
type process struct {
	name    string
	command *exec.Cmd
	ended   chan struct{} // closed when it has ended; err is set then
	err     error
}

// start runs a program whose output goes to a log file.
func start(logs, name string, args ...string) (*process, error) {
	return startWithInput(logs, name, os.DevNull, args...)
}

// startWithInput does so with a file as its standard input.
func startWithInput(logs, name, input string, args ...string) (*process, error) {
	in, err := os.Open(input)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	log, err := os.OpenFile(filepath.Join(logs, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{name: name, command: exec.Command(args[0], args[1:]...), ended: make(chan struct{})}
	p.command.Stdin, p.command.Stdout, p.command.Stderr = in, log, log
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() { // ends with the process; stop and kill wait for it
		// The kernel ties the child's life to the thread that started it, so that thread must stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.command.Start()
		started <- err
		if err == nil {
			p.err = p.command.Wait()
		}
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

func (p *process) pid() int { return p.command.Process.Pid }

// kill ends the process as kill -9 does.
func (p *process) kill() {
	_ = p.command.Process.Kill() // it may have ended
	<-p.ended
}

// stop ends the process in order.
func (p *process) stop() error {
	_ = p.command.Process.Signal(syscall.SIGTERM) // it may have ended
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-p.ended:
	case <-timer.C:
		p.kill()
		return fmt.Errorf("%s did not end within %v and was killed", p.name, stopTimeout)
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w", p.name, p.err)
	}
	return nil
}

// until looks again and again until there is no error, the process ends, or a minute is over.
func (p *process) until(ctx context.Context, look func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := look(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-p.ended:
			return errors.Join(fmt.Errorf("%s ended before it was ready", p.name), p.err)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", p.name, err)
		}
	}
}
