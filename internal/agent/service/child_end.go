package service

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// farewell is how long the last messages of a process wait for room in the outbox when the service stops.
const farewell = 500 * time.Millisecond

// awaitCause waits until there is a reason for the process to end.
func (c *child) awaitCause(ctx context.Context) error {
	select {
	case <-c.exited:
		return errExited
	case err := <-c.broken:
		return err
	case <-c.idle:
		return errIdle
	case <-ctx.Done():
		return errStopping
	}
}

// shutDown ends the process: its pipe is closed, then it is interrupted, then killed, each with a while to take effect. The
// rest of its group goes with it.
func (c *child) shutDown(cause error) error {
	close(c.closing)
	c.out.close()
	defer c.group.kill()
	for _, force := range []func(){func() {}, c.group.interrupt, c.group.kill} {
		force()
		if c.exitsWithin(c.timing.stopStep) {
			return cause
		}
	}
	return errors.Join(cause, errUnstoppable)
}

func (c *child) exitsWithin(d time.Duration) bool {
	return !pause(c.exited, d) || c.hasExited()
}

func (c *child) hasExited() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// finishReading takes what the process still had to say.
func (c *child) finishReading(readers *sync.WaitGroup) {
	c.in.finish()
	if c.output != nil {
		c.output.finish()
	}
	readers.Wait()
	c.in.close()
	if c.output != nil {
		c.output.close()
	}
}

// bury gives up the number of the process, and adds its exit status to the cause of its end.
func (c *child) bury(cause error) error {
	defer c.group.release()
	if !c.hasExited() {
		return cause // and it has to be left behind
	}
	_ = c.reap() // the state says it all
	return fmt.Errorf("%w (%v)", cause, c.cmd.ProcessState)
}
