// Package agent is the logic of fs-client: it keeps a client in touch with its servers and runs the client's services.
//
//	services ── host ── outbox ──┐                     ┌── router ── inboxes ── services
//	  outcomes, client info ── reports ── link ── server ──┘
//
// # Invariants
//
//   - A message that a service handed over stays in the outbox until the server acknowledged the record that carried it,
//     and is sent again until then. Within a priority nothing overtakes.
//   - A message from the server is answered with an ack or an error after its service is done with it, once. A repeat is
//     answered again and not executed again.
//   - Nothing waits to gather: a lone message leaves at once, and what comes while a record is under way shares the next.
//   - The receiving side does not wait for services, but for a minute at most where more bytes came than an inbox has room
//     for: nothing that was granted is dropped. Every queue has a bound; a full outbox holds back the sender.
//   - Where there is a disk to keep it on, a message that was handed over survives the end of the process, whatever ends it.
//   - Every way to stop has a deadline.
//   - At rest the agent has a few goroutines blocked, one of them in a read, and no timer faster than a minute but
//     glog's, of 30 s.
//
// # Who owns what
//
// Run starts everything and waits for it: the link's goroutine, which owns the servers' order and the session; a second one
// for the session's writing side; one for each service, which feeds it; one for the revocation list, one for the agent's
// own resource usage, and one for those who ask for the status. Outbox, router, reports and state are passive and guarded by locks, taken in this order: outbox,
// services, router, reports, state.
package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/agent/service"
	"github.com/farspeak/farspeak/internal/agent/spool"
	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Bounds of an orderly stop; together with serviceStopTimeout they stay below the ten seconds after which a service manager
// loses patience.
const (
	farewellTimeout  = 3 * time.Second
	linkLeaveTimeout = 1500 * time.Millisecond
	// forcedStopTimeout is what is granted to services when the agent was told to die by force.
	forcedStopTimeout = 500 * time.Millisecond
)

// ErrDie says that the server told the agent to die.
var ErrDie = errors.New("told to die by the server")

// Config is what an Agent is made of.
type Config struct {
	Link LinkConfig
	// Labels are those of the client: architecture, operating system, then the configured ones.
	Labels []string
	// State keeps the identity. Nil: it is lost at the end.
	State StateStore
	// Spool keeps the messages that the server does not have yet. An empty directory: they are lost at the end.
	Spool spool.Config
	// StatusSocket is where the agent tells its status to its owner. Empty: nowhere.
	StatusSocket string
	// Services are installed at start, in order. One that cannot be is logged and left out.
	Services []Installation
	// Deployer has services installed and removed by the server. Nil: it may not.
	Deployer Deployer
	// Factories are the kinds of service there are.
	Factories service.Factories
	// Stalled is called when the communicator hangs. It should end the process.
	Stalled func()
}

// Agent is a client's end of the fabric. It is made by New and lives for one Run.
type Agent struct {
	cfg      Config
	started  time.Time
	state    *state
	reports  *reports
	outbox   *outbox
	router   *router
	services *services
	link     *link
	watchdog *watchdog
	death    chan bool // holds whether by force
}

// New makes an agent and takes the lock on its identity; Run gives it back. It fails if the state is unusable, see
// openState, and if another agent runs on the same state.
func New(cfg Config) (*Agent, error) {
	if cfg.Stalled == nil {
		cfg.Stalled = func() { glog.Error("the communicator hangs") }
	}
	cfg.Link = cfg.Link.withDefaults()
	if len(cfg.Link.Servers) == 0 {
		return nil, errors.New("no server is configured")
	}
	state, err := openState(cfg.State, time.Now())
	if err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, started: time.Now(), state: state, death: make(chan bool, 1)}
	a.reports = &reports{identity: a.ID, info: a.info, wake: a.wake}
	a.outbox = newOutbox(a.reports, openKeeper(cfg.Spool))
	a.router = newRouter(a.ID, a.reports)
	a.services = newServices(cfg.Factories, a.router, cfg.Labels, a.host)
	longest := max(cfg.Link.MaxPollDelay, cfg.Link.MaxFailureDelay, maxRetryAfter)
	a.watchdog = newWatchdog(longest, cfg.Stalled)
	a.link = newLink(cfg.Link, cfg.Labels, state, a.outbox, a.router, a.watchdog)
	return a, nil
}

// ID is the client's name now.
func (a *Agent) ID() identity.ClientID { return a.state.identity().ID }

func (a *Agent) wake() { a.outbox.wake() }

func (a *Agent) host(name string) service.Host {
	return &host{name: name, self: a.ID, outbox: a.outbox, router: a.router}
}

// info describes the client to the server.
func (a *Agent) info() *fspb.ClientInfoData {
	data := &fspb.ClientInfoData{Services: a.services.ids()}
	for _, l := range a.cfg.Labels {
		data.Labels = append(data.Labels, &fspb.Label{ServiceName: clientService, Label: validText(l, maxErrorText)})
	}
	return data
}

// Run works until ctx ends, and then stops in order: services first, then what they left in the outbox is sent, as far as
// that succeeds within seconds. It returns nil then, ErrDie when the server wanted it, and ErrLonely when no server answered
// for too long. When the agent dies by force nothing is waited for that takes longer than a moment.
func (a *Agent) Run(ctx context.Context) error {
	defer a.closeState()
	defer a.outbox.keeper.close()
	defer a.watchdog.stop()
	a.startServices(ctx)
	a.reports.announce()

	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var helpers sync.WaitGroup
	helpers.Go(func() { a.link.runRevocation(background) })
	helpers.Go(func() { a.runUsage(background) })
	helpers.Go(func() { a.runStatus(background) })
	linked := make(chan error, 1)
	go func() { linked <- a.link.run(background) }() // waited for in stop

	err, linkEnded := a.wait(ctx, linked)
	if !errors.Is(err, errForced) {
		a.stop(ctx, linked, linkEnded, cancel)
		helpers.Wait()
		return err
	}
	a.stopByForce(ctx)
	return err
}

// errForced is in the error of a forced death.
var errForced = fmt.Errorf("%w, by force", ErrDie)

// wait waits for a reason to stop.
func (a *Agent) wait(ctx context.Context, linked <-chan error) (err error, linkEnded bool) {
	select {
	case <-ctx.Done():
		return nil, false
	case force := <-a.death:
		if force {
			return errForced, false
		}
		return ErrDie, false
	case err := <-linked:
		return err, true
	}
}

// stop ends everything in order, each step within its time.
func (a *Agent) stop(ctx context.Context, linked <-chan error, linkEnded bool, cancel context.CancelFunc) {
	a.services.stop(ctx) // they send no more then (G-56)
	a.outbox.close()
	if linkEnded {
		cancel()
		return
	}
	if a.outbox.stats().Messages > 0 {
		a.link.interrupt()
	}
	farewell := time.NewTimer(farewellTimeout)
	defer farewell.Stop()
	select {
	case <-a.outbox.idle:
	case <-farewell.C:
		left := a.outbox.stats()
		glog.Warningf("%d messages were not sent any more, of which %d are on disk for the next start", left.Messages, left.Kept.messages)
	case <-linked:
		cancel()
		return
	}
	close(a.link.leave)
	patience := time.AfterFunc(linkLeaveTimeout, cancel)
	defer patience.Stop()
	<-linked
	cancel()
}

// stopByForce gives services a moment to end what they started; the process ends right after.
func (a *Agent) stopByForce(ctx context.Context) {
	stopped := make(chan struct{})
	go func() {
		a.services.stop(ctx)
		close(stopped)
	}()
	moment := time.NewTimer(forcedStopTimeout)
	defer moment.Stop()
	select {
	case <-stopped:
	case <-moment.C:
	}
}

func (a *Agent) closeState() {
	if err := a.state.close(); err != nil {
		glog.Errorf("the state is not written: %v", err)
	}
}

// startServices installs what is configured, before the first contact, which then grants tokens for all of them.
func (a *Agent) startServices(ctx context.Context) {
	installation := Installation{Config: &fspb.ClientServiceConfig{Name: systemService, Factory: "system"}}
	if err := a.services.start(installation, system{actions{a}}); err != nil {
		glog.Errorf("service %s: %v", systemService, err) // only after a stop
	}
	for _, in := range a.cfg.Services {
		if err := a.services.install(ctx, in); err != nil {
			glog.Warningf("service %q of %s is not installed: %v", in.Config.GetName(), in.Origin, err)
		}
	}
}

// Install starts a service while the agent runs, in place of one of the same name.
func (a *Agent) Install(ctx context.Context, in Installation) error {
	if err := a.services.install(ctx, in); err != nil {
		return fmt.Errorf("install service %q: %w", in.Config.GetName(), err)
	}
	a.reports.announce()
	return nil
}

// Remove stops a service for good. Messages that wait for it fail.
func (a *Agent) Remove(ctx context.Context, name string) error {
	if err := a.services.remove(ctx, name); err != nil {
		return fmt.Errorf("remove service: %w", err)
	}
	a.reports.announce()
	return nil
}

// actions is what the system service has the agent do.
type actions struct{ *Agent }

func (a actions) rekey() error {
	old := a.ID()
	fresh, err := a.state.rekey()
	if err != nil {
		return err
	}
	glog.Infof("client %v is client %v from now on", old, fresh.ID)
	a.reports.announceQuietly() // the acknowledgement that follows has the session end, and the next one begins with it
	return nil
}

func (a actions) die(force bool) {
	select {
	case a.death <- force:
	default: // once is enough
	}
}

func (a actions) restartService(ctx context.Context, name string) error {
	changed, err := a.services.restart(ctx, name)
	if changed {
		a.reports.announce()
	}
	return err
}
