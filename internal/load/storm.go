package load

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/load/fleet"
)

// StormConfig is for Storm.
type StormConfig struct {
	Config
	// Restart kills the server and starts it again. It returns when it did so, with the process ID of the new server, or
	// 0 when it does not know it.
	Restart func(context.Context) (pid int, err error)
	// Rate is how many messages a second are submitted meanwhile, of Size bytes, to see that none is lost; 0 is none.
	Rate float64
	Size int
	// For is how long to wait until all clients are back.
	For time.Duration
}

// serverName is under which name the server is watched.
const serverName = "fs-server"

// Storm takes the server away from connected clients and gives it back: how long until all are connected again?
func Storm(ctx context.Context, c StormConfig) (*Result, error) {
	return play(ctx, "storm", c.Config, func(ctx context.Context, r *run) error {
		if _, err := r.connectAll(ctx); err != nil {
			return err
		}
		s, stop, err := r.traffic(ctx, c)
		if err != nil {
			return err
		}
		r.crew.restart(fleet.ConnectTime)
		var back comeback
		p, err := r.phase(ctx, "storm", func(ctx context.Context) (err error) {
			back, err = r.storm(ctx, c)
			return err
		})
		r.stormFigures(p, back)
		stop()
		if s != nil {
			if err == nil {
				err = r.untilDelivered(ctx, s)
			}
			r.proveDown(ctx, s)
		}
		return err
	})
}

// traffic submits messages until stop is called, if there are to be any.
func (r *run) traffic(ctx context.Context, c StormConfig) (s *submitter, stop func(), err error) {
	if c.Rate <= 0 {
		return nil, func() {}, nil
	}
	if s, err = newSubmitter(r, c.Size); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var submitting sync.WaitGroup
	submitting.Go(func() { s.openLoop(ctx, c.Rate) })
	return s, func() { cancel(); submitting.Wait() }, nil
}

// comeback is when what happened after a server was killed.
type comeback struct {
	killed, returned time.Time
	half, most, all  time.Time // 50, 99 and 100 % of all clients
}

// storm restarts the server and waits until all clients are back.
func (r *run) storm(ctx context.Context, c StormConfig) (b comeback, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.For, errNotBack)
	defer cancel()
	before := gone(r.crew.counts())
	b.killed = time.Now()
	restarted := make(chan struct{})
	var restartErr error // valid when restarted is closed
	go func() {          // the wait for it is below
		defer close(restarted)
		var pid int
		if pid, restartErr = c.Restart(ctx); pid != 0 {
			r.watchProcess(serverName, pid)
		}
	}()
	err = r.crew.until(ctx, func(c fleet.Counts) bool { return gone(c) > before })
	if err == nil {
		b.returned, err = r.untilListening(ctx, restarted)
	}
	if <-restarted; restartErr != nil {
		return b, errors.Join(restartErr, err)
	}
	if err != nil {
		return b, err
	}
	for _, step := range []struct {
		share float64
		at    *time.Time
	}{{0.5, &b.half}, {0.99, &b.most}, {1, &b.all}} {
		want := int64(step.share * float64(r.Clients))
		// Those that are back are those that connected since; a count of sessions would take in the dead.
		if err := r.crew.until(ctx, func(c fleet.Counts) bool {
			return c[fleet.Connected] >= want && gone(c)-before >= want
		}); err != nil {
			return b, err
		}
		*step.at = time.Now()
	}
	return b, nil
}

var errNotBack = errors.New("not all clients came back in time")

// untilListening tries until the first server takes a connection again. A process that ends closes its sessions first, and
// the socket that it listens on last: until it refused one, or was started again, a connection proves nothing.
func (r *run) untilListening(ctx context.Context, restarted <-chan struct{}) (time.Time, error) {
	var dialer net.Dialer
	refused := false
	for {
		conn, err := dialer.DialContext(ctx, "tcp", r.Job.Servers[0])
		if err == nil {
			if err := conn.Close(); err != nil || refused || isClosed(restarted) {
				return time.Now(), err
			}
		}
		refused = refused || err != nil
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return time.Time{}, err
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (r *run) stormFigures(p *Phase, b comeback) {
	if b.returned.IsZero() {
		return
	}
	since := func(t time.Time) float64 { return t.Sub(b.returned).Seconds() }
	r.result.add("seconds_away", "Server was away", b.returned.Sub(b.killed).Seconds(), "s")
	for _, step := range []struct {
		name, text string
		at         time.Time
	}{
		{"seconds_to_50_percent", "Half of all clients back", b.half}, {"seconds_to_99_percent", "99 % of all clients back", b.most},
		{"seconds_to_all", "All clients back", b.all},
	} {
		if !step.at.IsZero() {
			r.result.add(step.name, step.text+", after its return", since(step.at), "s")
		}
	}
	r.result.add("peak_mib", "fs-server memory, largest of the run", float64(r.peak(serverName))/(1<<20), "MiB")
	r.result.add("resumed_share", "Reconnects that resumed TLS", 100*float64(p.counts[fleet.Resumed])/float64(max(1, p.counts[fleet.Connects])), "%")
	r.result.add("failed_dials", "Failed dials a client", float64(p.counts[fleet.Failures])/float64(r.Clients), "")
	r.costOf(p, "reconnect", "reconnect", float64(p.counts[fleet.Connects]), "ms", 1000)
}

// gone is how many sessions ended.
func gone(c fleet.Counts) int64 { return c[fleet.Lost] + c[fleet.Farewells] }
