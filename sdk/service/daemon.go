package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/channel"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// flushTimeout is how long Close waits for the message that is being written.
const flushTimeout = 5 * time.Second

// DaemonConfig describes a Daemon. The zero value is fine.
type DaemonConfig struct {
	// Version is shown in resource reports and kill notifications.
	Version string
	// Heartbeat is the longest silence after which a heartbeat is sent; 0 sends none. It is for services whose file has
	// monitor_heartbeats, and has to be well below their heartbeat_unresponsive_kill_period. It proves that the process
	// runs; a service that wants to prove that its work proceeds leaves it at 0 and calls Heartbeat.
	Heartbeat time.Duration
	// In and Out are used in place of what the agent has passed on, both or none. For tests.
	In  io.ReadCloser
	Out io.WriteCloser
}

// Daemon is the connection of a process that the agent has started.
//
// One goroutine reads, at most one message ahead, and one writes. Close waits for both.
type Daemon struct {
	cfg DaemonConfig
	in  io.ReadCloser
	out io.WriteCloser

	ready    chan struct{} // closed when the agent's magic has come
	received chan *fspb.Message
	sends    chan *outgoing
	stopping chan struct{} // closed by Close

	readEnd  chan struct{} // closed by the reader when it ends; readErr is set then
	readErr  error
	writeEnd chan struct{} // closed by the writer when it ends; writeErr is set then
	writeErr error

	close func() error // once
}

// outgoing is a frame on its way to the writer.
type outgoing struct {
	frame []byte
	done  chan error // has room for the result
}

// OpenDaemon takes over the connection that the agent has given to this process, introduces the process, and waits until
// the agent has answered. It can be called once: the environment variables that name the connection are removed, so that
// no child takes itself for the service.
func OpenDaemon(ctx context.Context, cfg DaemonConfig) (*Daemon, error) {
	if (cfg.In == nil) != (cfg.Out == nil) {
		return nil, errors.New("DaemonConfig: In and Out go together")
	}
	if cfg.In == nil {
		var err error
		if cfg.In, cfg.Out, err = inherit(); err != nil {
			return nil, fmt.Errorf("connection to the agent: %w", err)
		}
	}
	d := &Daemon{
		cfg: cfg, in: cfg.In, out: cfg.Out,
		ready: make(chan struct{}), received: make(chan *fspb.Message), sends: make(chan *outgoing),
		stopping: make(chan struct{}), readEnd: make(chan struct{}), writeEnd: make(chan struct{}),
	}
	d.close = sync.OnceValue(d.shut)
	go d.read() // shut waits for both
	go d.write()
	select {
	case <-d.ready:
		return d, nil
	case <-d.readEnd:
		return nil, errors.Join(fmt.Errorf("connection to the agent: %w", noEOF(d.readErr)), d.close())
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("connection to the agent: %w", ctx.Err()), d.close())
	}
}

// Receive waits for the next message; see Conn. Errors are final, those of ctx excepted.
func (d *Daemon) Receive(ctx context.Context) (*fspb.Message, error) {
	select {
	case m := <-d.received:
		return m, nil
	case <-d.readEnd:
		return nil, d.readErr
	case <-d.stopping:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Send writes a message; when it returns nil the agent can read it, whatever becomes of this process. The agent fills in
// the source, and a source message ID if there is none. A context that ends while the message is being written leaves open
// whether the message is sent; the connection stays good.
//
// The protocol has no acknowledgement for a Daemon. One that has to know what an agent took before it was killed can send a
// message to itself, to the client ID in FLEETSPEAK_CLIENT_ID and its own service: that comes back to Receive when everything
// sent before is with the agent. What did not get that far is sent again by the next process, under the same source message
// IDs.
func (d *Daemon) Send(ctx context.Context, m *fspb.Message) error {
	if err := check(m); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return d.send(ctx, m)
}

// Heartbeat tells the agent that the service is well. Every message does that, too.
func (d *Daemon) Heartbeat(ctx context.Context) error { return d.send(ctx, channel.Heartbeat()) }

func (d *Daemon) send(ctx context.Context, m *fspb.Message) error {
	frame, err := channel.AppendFrame(nil, m)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	o := &outgoing{frame: frame, done: make(chan error, 1)}
	select {
	case d.sends <- o:
	case <-d.writeEnd:
		return d.writeErr
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the connection after the message that is being written. The agent takes it for the end of the process.
func (d *Daemon) Close() error { return d.close() }

func (d *Daemon) shut() error {
	close(d.stopping)
	timer := time.NewTimer(flushTimeout)
	defer timer.Stop()
	select {
	case <-d.writeEnd:
	case <-timer.C:
	}
	err := d.out.Close() // ends a write
	if e := d.in.Close(); !errors.Is(e, os.ErrClosed) {
		err = errors.Join(err, e)
	}
	<-d.writeEnd
	<-d.readEnd
	return err
}

// read is the reader's goroutine.
func (d *Daemon) read() {
	defer close(d.readEnd)
	err := d.receive()
	select {
	case <-d.stopping: // whatever closing the stream looked like
		d.readErr = ErrClosed
	default:
		d.readErr = err
	}
}

// receive hands messages over until the stream ends.
func (d *Daemon) receive() error {
	// A stream without deadlines is closed instead: the agent is broken when one passes.
	r := channel.NewReader(d.in, channel.Config{Expired: func() { _ = d.in.Close() }})
	if err := r.ReadMagic(); err != nil {
		return err
	}
	close(d.ready)
	for {
		m, err := r.Next()
		if err != nil {
			return err
		}
		select {
		case d.received <- m:
		case <-d.stopping:
			return ErrClosed
		}
	}
}

// write is the writer's goroutine.
func (d *Daemon) write() {
	defer close(d.writeEnd)
	if d.writeErr = d.introduce(); d.writeErr != nil {
		return
	}
	var silence <-chan time.Time
	var restart func(time.Duration)
	if d.cfg.Heartbeat > 0 {
		ticker := time.NewTicker(d.cfg.Heartbeat)
		defer ticker.Stop()
		silence, restart = ticker.C, ticker.Reset
	}
	heartbeat, _ := channel.AppendFrame(nil, channel.Heartbeat()) // always fits
	for d.writeErr == nil {
		select {
		case o := <-d.sends:
			d.writeErr = d.writeFrame(o.frame)
			o.done <- d.writeErr
			if restart != nil {
				restart(d.cfg.Heartbeat)
			}
		case <-silence:
			d.writeErr = d.writeFrame(heartbeat)
		case <-d.stopping:
			d.writeErr = ErrClosed
		}
	}
}

// introduce says what an agent hears first, before anything of it is read.
func (d *Daemon) introduce() error {
	w := channel.NewWriter(d.out)
	if err := w.WriteMagic(); err != nil {
		return err
	}
	return w.WriteMessage(channel.Startup(int64(os.Getpid()), d.cfg.Version))
}

func (d *Daemon) writeFrame(frame []byte) error {
	if _, err := d.out.Write(frame); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// noEOF keeps an agent that left before it said anything from looking like the orderly end of a service.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
