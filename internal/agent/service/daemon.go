package service

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/golang/glog"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	daemonpb "github.com/farspeak/farspeak/proto/fleetspeak/daemonservice"
)

// daemon keeps a process running and talks to it over two pipes. One goroutine, keep, lives through one process after the
// other; a child has goroutines of its own and ends with all of them.
type daemon struct {
	name     string
	host     Host
	settings daemonSettings
	timing   timing
	counter  counter
	state    *stateBoard
	drops    *dropLog

	stop context.CancelFunc
	done chan struct{} // closed when keep has ended
}

// NewDaemon makes a service that keeps a process running, and starts it unless that waits for a message. A process that
// ends, for whatever reason, is started again, at most once a minute.
func NewDaemon(spec Spec) (Service, error) { return newDaemon(spec, protocolTiming, false) }

// NewAttachedDaemon is NewDaemon with processes that have the agent's own standard streams, for tests.
func NewAttachedDaemon(spec Spec) (Service, error) { return newDaemon(spec, protocolTiming, true) }

func newDaemon(spec Spec, times timing, attached bool) (Service, error) {
	config := &daemonpb.Config{}
	if err := configOf(spec, config); err != nil {
		return nil, err
	}
	settings, err := readDaemonSettings(spec.Name, config)
	if err != nil {
		return nil, err
	}
	settings.attached = attached
	ctx, cancel := context.WithCancel(context.Background())
	d := &daemon{
		name:     spec.Name,
		host:     spec.Host,
		settings: settings,
		timing:   times,
		counter:  make(counter),
		state:    &stateBoard{},
		drops:    &dropLog{service: spec.Name},
		stop:     cancel,
		done:     make(chan struct{}),
	}
	go d.keep(ctx) // Stop waits for it
	return d, nil
}

// Process returns when the process has the message in its pipe.
func (d *daemon) Process(ctx context.Context, m *fspb.Message) error {
	return d.counter.deliver(ctx, m)
}

// Stop ends the process, if necessary by force, with all that it started and that stayed in its process group.
func (d *daemon) Stop(ctx context.Context) {
	d.stop()
	select {
	case <-d.done:
	case <-ctx.Done():
		glog.Errorf("service %s: the process does not end", d.name)
	}
}

// State implements Stater.
func (d *daemon) State() State { return d.state.read() }

// keep lives through one process after the other until ctx ends.
func (d *daemon) keep(ctx context.Context) {
	defer close(d.done)
	var last time.Time
	var left []*handover
	for {
		left = slices.DeleteFunc(left, func(h *handover) bool { return !h.wanted() })
		if d.settings.lazy && len(left) == 0 {
			left = d.awaitMessage(ctx)
		}
		if !d.awaitTurn(ctx, last) {
			break
		}
		last = time.Now()
		left = d.live(ctx, left)
	}
	d.countLost(left)
}

// awaitMessage waits for something to start a process for.
func (d *daemon) awaitMessage(ctx context.Context) []*handover {
	select {
	case h := <-d.counter:
		return []*handover{h}
	case <-ctx.Done():
		return nil
	}
}

// awaitTurn waits until a process may be started again.
func (d *daemon) awaitTurn(ctx context.Context, last time.Time) bool {
	if ctx.Err() != nil {
		return false
	}
	wait := time.Until(last.Add(d.timing.respawn))
	return last.IsZero() || wait <= 0 || pause(ctx.Done(), wait)
}

// live runs one process to its end, gives it the messages of its predecessor first, and returns what it left in turn.
func (d *daemon) live(ctx context.Context, messages []*handover) (left []*handover) {
	d.state.starting()
	c, err := d.startChild(messages)
	if err != nil {
		d.state.fail(err)
		glog.Errorf("service %s: the process does not start: %v", d.name, err)
		return messages
	}
	d.state.started(c.pid())
	glog.Infof("service %s: process %d is started", d.name, c.pid())
	left, dropped, cause := c.run(ctx)
	d.state.ended(cause, ctx.Err() != nil || errors.Is(cause, errIdle))
	glog.Infof("service %s: process %d has ended after %v: %v", d.name, c.pid(), time.Since(c.started).Round(time.Millisecond), cause)
	if dropped > 0 {
		glog.Errorf("service %s: %d messages are dropped, processes ended again and again while they read them", d.name, dropped)
	}
	return left
}

// countLost tells of messages that the server takes for delivered. The others come again.
func (d *daemon) countLost(left []*handover) {
	lost := len(slices.DeleteFunc(left, func(h *handover) bool { return !h.isSettled() }))
	if lost > 0 {
		glog.Errorf("service %s: the process left %d messages unread", d.name, lost)
	}
}
