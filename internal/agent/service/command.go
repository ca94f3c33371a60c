package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// killGrace is how long the pipes of a killed command may stay open, held by a process that left its group.
const killGrace = time.Second

// command is one run of a program. It leads a process group of its own, so that it can be killed with its children. The run
// ends when the process ended and everything that holds its output did too.
type command struct {
	path  string
	args  []string
	input []byte
	limit int // bytes of output, both streams together

	// Valid after run.
	stdout, stderr bytes.Buffer
}

var errTooMuchOutput = errors.New("too much output")

// run runs the command to its end, or kills it when ctx ends or the output is over the limit.
func (c *command) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.Command(c.path, c.args...)
	ownGroup(cmd)
	closeStrays()
	pipes, err := openPipes(cmd)
	if err != nil {
		return err
	}
	defer pipes.closeOurs()
	if err := cmd.Start(); err != nil {
		return err
	}
	pipes.closeTheirs()
	processes := newGroup(cmd.Process)
	defer processes.release()

	var copies sync.WaitGroup
	copies.Go(func() { pipes.feed(c.input) })
	c.collect(&copies, pipes, cancel)
	ended := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() { guard(ctx, processes, pipes, ended) })
	copies.Wait()
	err = cmd.Wait()
	close(ended)
	watch.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// collect starts the two readers of the output, which share the limit.
func (c *command) collect(wg *sync.WaitGroup, p *pipes, cancel context.CancelCauseFunc) {
	var mu sync.Mutex
	left := c.limit
	take := func(into *bytes.Buffer) writerFunc {
		return func(b []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			if left -= len(b); left < 0 {
				cancel(fmt.Errorf("%w: more than %d bytes", errTooMuchOutput, c.limit))
				return 0, errTooMuchOutput
			}
			return into.Write(b)
		}
	}
	wg.Go(func() { _, _ = io.Copy(take(&c.stdout), p.stdout) }) // ends with the pipe, or after the kill
	wg.Go(func() { _, _ = io.Copy(take(&c.stderr), p.stderr) })
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// guard kills the command when ctx ends before the command does. What left the process group and holds a pipe cannot be
// killed, but neither can it hold up the service: the pipes are closed then.
func guard(ctx context.Context, processes *group, p *pipes, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	processes.kill()
	timer := time.NewTimer(killGrace)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		p.closeOurs()
	}
}

// pipes are the three standard streams of a command: our ends, and the command's until it has started.
type pipes struct {
	pipeEnds
	stdin, stdout, stderr *os.File
}

func openPipes(cmd *exec.Cmd) (*pipes, error) {
	p := &pipes{}
	theirStdin, stdin := p.toProcess()
	stdout, theirStdout := p.fromProcess()
	stderr, theirStderr := p.fromProcess()
	p.stdin, p.stdout, p.stderr = stdin, stdout, stderr
	if p.err != nil {
		p.closeTheirs()
		p.closeOurs()
		return nil, fmt.Errorf("open pipes: %w", p.err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirStdin, theirStdout, theirStderr
	return p, nil
}

// feed writes the input. A command may end without having read it.
func (p *pipes) feed(input []byte) {
	_, _ = p.stdin.Write(input)
	_ = p.stdin.Close()
}
