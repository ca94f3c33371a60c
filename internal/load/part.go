package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/farspeak/farspeak/internal/load/fleet"
)

// commandTimeout bounds the answer of a fleet to a command; taking accounts of many clients is the slowest.
const commandTimeout = 2 * time.Minute

// part is one fleet and the way to it.
type part struct {
	crew         *crew
	first, count int
	in           io.WriteCloser
	commands     *json.Encoder
	done         chan fleet.Answer // answers to commands
	ended        chan struct{}     // closed when it says nothing more
	wait         func() error      // for its end
	unheard      error             // why listen returned before the end; read after crew.running
	pid          int               // of its process, 0 for this one

	// Guarded by crew.mu.
	counts   fleet.Counts
	failures map[string]int64
}

// launch starts a fleet in this process, or in a child.
func (p *part) launch(ctx context.Context, command []string) error {
	var out io.Reader
	if len(command) == 0 {
		fromUs, toFleet := io.Pipe()
		fromFleet, toUs := io.Pipe()
		served := make(chan error, 1)
		go func() { // wait waits for it
			err := fleet.Serve(context.WithoutCancel(ctx), fromUs, toUs)
			toUs.CloseWithError(io.EOF)
			fromUs.CloseWithError(io.ErrClosedPipe)
			served <- err
		}()
		p.in, out, p.wait = toFleet, fromFleet, func() error { return <-served }
	} else {
		child := exec.Command(command[0], command[1:]...)
		child.Stderr = os.Stderr
		child.SysProcAttr = childAttributes()
		var err error
		if p.in, err = child.StdinPipe(); err != nil {
			return err
		}
		if out, err = child.StdoutPipe(); err != nil {
			return err
		}
		if err := child.Start(); err != nil {
			return fmt.Errorf("start a process for clients: %w", err)
		}
		p.wait, p.pid = child.Wait, child.Process.Pid
	}
	p.commands = json.NewEncoder(p.in)
	p.crew.running.Go(func() { p.unheard = p.listen(out) })
	return nil
}

// listen takes what a fleet says, to its end.
func (p *part) listen(out io.Reader) error {
	defer p.crew.partEnded(p)
	decoder := json.NewDecoder(out)
	for {
		var a fleet.Answer
		if err := decoder.Decode(&a); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("report of a fleet: %w", err)
		}
		if a.Report != nil {
			p.crew.take(p, a.Report)
		}
		if a.Done {
			p.done <- a
		}
	}
}

// order gives one fleet a command and waits for the answer.
func (p *part) order(ctx context.Context, c fleet.Command) (fleet.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	if err := p.commands.Encode(c); err != nil {
		return fleet.Answer{}, fmt.Errorf("command to a fleet: %w", err)
	}
	select {
	case a := <-p.done:
		if a.Error != "" {
			return a, errors.New(a.Error)
		}
		return a, nil
	case <-p.ended:
		return fleet.Answer{}, errPartEnded
	case <-ctx.Done():
		return fleet.Answer{}, fmt.Errorf("a fleet does not answer: %w", ctx.Err())
	}
}
