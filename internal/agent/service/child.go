package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"
)

// Variables by which a process finds its client's name and its ends of the pipes.
const (
	clientIDVariable = "FLEETSPEAK_CLIENT_ID"
	inVariable       = "FLEETSPEAK_COMMS_CHANNEL_INFD"
	outVariable      = "FLEETSPEAK_COMMS_CHANNEL_OUTFD"
)

// Causes of the end of a process, apart from errors on its channel.
var (
	errExited      = errors.New("it ended by itself")
	errClosed      = errors.New("it closed its channel")
	errIdle        = errors.New("no message came for so long that it was stopped")
	errStopping    = errors.New("the service stops")
	errUnstoppable = errors.New("it cannot be killed")
)

// child is one process of a Daemon: the two pipes, and the goroutines around them.
//
//	deliver ── outflow ──▶ process ──▶ inflow ── receive ── host
//	                          └──────▶ inflow ── collect ── host   (standard output and error, if forwarded)
//
// Beside them one goroutine waits for the end of the process, and one or two supervise it. run starts all of them and
// returns when they have ended.
type child struct {
	*daemon
	queue   []*handover // what its predecessor left; of deliver
	cmd     *exec.Cmd
	group   *group
	started time.Time
	in      *inflow
	out     *outflow
	output  *output // nil when standard output and error are not forwarded

	greeted chan struct{} // closed when the process's first magic has come
	closing chan struct{} // closed when nothing more is handed to the process
	exited  chan struct{} // closed when the process has ended
	broken  chan error    // receives when a direction of the channel has ended
	idle    chan struct{} // closed when there was no message for too long
	reap    func() error  // valid when exited is closed

	activity activity // in both directions
	heard    activity // from the process only
	startup  startup
}

// startChild starts a process. Whatever was opened for one that does not start is closed again (G-63).
func (d *daemon) startChild(messages []*handover) (*child, error) {
	c := &child{
		daemon:  d,
		queue:   messages,
		started: time.Now(),
		greeted: make(chan struct{}),
		closing: make(chan struct{}),
		exited:  make(chan struct{}),
		broken:  make(chan error, 2), // one for each direction
		idle:    make(chan struct{}),
		startup: startup{come: make(chan struct{})},
	}
	c.cmd = exec.Command(d.settings.argv[0], d.settings.argv[1:]...)
	ownGroup(c.cmd)
	ends := &pipeEnds{}
	defer ends.closeTheirs()
	if err := c.connect(ends); err != nil {
		ends.closeOurs()
		return nil, err
	}
	closeStrays()
	if err := c.cmd.Start(); err != nil {
		ends.closeOurs()
		return nil, err
	}
	c.group = newGroup(c.cmd.Process)
	c.activity.touch()
	return c, nil
}

// connect makes the pipes of a process and tells it about them.
func (c *child) connect(ends *pipeEnds) error {
	theirIn, ourOut := ends.toProcess()
	ourIn, theirOut := ends.fromProcess()
	c.attachOutput(ends)
	if ends.err != nil {
		return fmt.Errorf("open pipes: %w", ends.err)
	}
	c.in, c.out = &inflow{f: ourIn}, newOutflow(ourOut)
	inNumber, outNumber := passChannel(c.cmd, theirIn, theirOut)
	c.cmd.Env = append(os.Environ(),
		clientIDVariable+"="+c.host.ClientID().String(),
		inVariable+"="+strconv.FormatUint(uint64(inNumber), 10),
		outVariable+"="+strconv.FormatUint(uint64(outNumber), 10))
	return nil
}

// attachOutput decides where standard output and error go. The default is nowhere.
func (c *child) attachOutput(ends *pipeEnds) {
	switch {
	case c.settings.attached:
		c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	case c.settings.output != nil:
		stdout, theirStdout := ends.fromProcess()
		stderr, theirStderr := ends.fromProcess()
		c.cmd.Stdout, c.cmd.Stderr = theirStdout, theirStderr
		c.output = newOutput(c, &inflow{f: stdout}, &inflow{f: stderr})
	}
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// run sees the process through to its end, which comes at the latest when ctx ends. It returns the messages that the
// process did not read, how many were given up, and why it ended.
func (c *child) run(ctx context.Context) (left []*handover, dropped int, cause error) {
	sending, cancelSending := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelSending()
	supervising, endSupervision := context.WithCancel(sending)
	var deliveries, readers, supervisors sync.WaitGroup
	go c.await() // ends with the process, for which shutDown waits
	deliveries.Go(c.deliver)
	readers.Go(func() { c.receive(sending) })
	if c.output != nil {
		readers.Go(func() { c.output.collect(sending) })
	}
	supervisors.Go(func() { c.supervise(supervising, sending) })
	supervisors.Go(func() { c.watchActivity(supervising) })

	cause = c.shutDown(c.awaitCause(ctx))
	// The outbox may be full: that holds up a new process, but a stop of the service for a moment only.
	forget := context.AfterFunc(ctx, func() { time.AfterFunc(farewell, cancelSending) })
	defer forget()
	endSupervision()
	deliveries.Wait()
	c.finishReading(&readers)
	supervisors.Wait()
	cause = c.bury(cause)
	c.reportEnd(ctx)
	left, dropped = c.out.leftover()
	return append(left, c.queue...), dropped, cause
}

// await waits for the end of the process.
func (c *child) await() {
	c.reap = awaitEnd(c.cmd)
	close(c.exited)
}
