package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

const (
	// stopTimeout is how long a process may take to end in order.
	stopTimeout = 30 * time.Second
	// tailBytes is how much of a log is shown after a failure.
	tailBytes = 4 << 10
)

// process is a running program of the site.
type process struct {
	name    string
	command *exec.Cmd
	log     string
	done    chan struct{} // closed when it has ended; err is set then
	err     error
}

// start runs a program that stays. It must be called from the main goroutine, whose thread lives as long as the demo.
func (s *site) start(name, program string, args ...string) error {
	p := &process{name: name, log: s.path(name + ".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return err
	}
	defer log.Close()
	p.command = exec.Command(filepath.Join(s.bin, program), args...)
	p.command.Stdout, p.command.Stderr = log, log
	p.command.SysProcAttr = childAttributes()
	if err := p.command.Start(); err != nil {
		return fmt.Errorf("start %s: %w; make build makes the programs", name, err)
	}
	s.processes = append(s.processes, p)
	go func() { // ends with the process; stop waits for it
		p.err = p.command.Wait()
		close(p.done)
		s.ended <- p // has room for all
	}()
	return nil
}

// runToEnd runs a program and waits for it.
func (s *site) runToEnd(ctx context.Context, out io.Writer, program string, args ...string) error {
	var errout bytes.Buffer
	command := exec.CommandContext(ctx, filepath.Join(s.bin, program), args...)
	command.Stdout, command.Stderr = out, &errout
	command.SysProcAttr = childAttributes()
	if err := command.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, errout.Bytes())
	}
	return nil
}

// result is how a process that has ended did so.
func (p *process) result() error {
	if p.err != nil {
		return p.err
	}
	return errors.New("exit status 0")
}

// stop asks the process to end and waits for it. A process that does not end in time is killed, which is an error.
func (p *process) stop() error {
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		err := p.command.Process.Kill()
		<-p.done
		return errors.Join(fmt.Errorf("%s did not end within %v and was killed", p.name, stopTimeout), err)
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w", p.name, p.err)
	}
	return nil
}

// printLogs shows the end of each log.
func (s *site) printLogs(out io.Writer) {
	for _, p := range s.processes {
		text, err := os.ReadFile(p.log)
		if err != nil {
			fmt.Fprintln(out, err)
			continue
		}
		fmt.Fprintf(out, "==> %s <==\n%s\n", p.log, text[max(0, len(text)-tailBytes):])
	}
}

func writeText(path string, m proto.Message) error {
	text, err := prototext.MarshalOptions{Multiline: true}.Marshal(m)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}
