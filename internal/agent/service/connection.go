package service

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/farspeak/farspeak/internal/channel"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// parting is how long the agent reads on after it could write no more: a process that has gone may have left messages.
	parting = 5 * time.Second
	// sendBuffer is what the system holds of what was written to a process, in bytes. It reads its LocalAcks behind that, and
	// may wait for them before it reads on: so this is less than the messages that it may have under way.
	sendBuffer = 16 << 10
	// peerMessageIDSize is the length of the IDs given to messages without one.
	peerMessageIDSize = 16
)

// connection is one process at a Socket, from accept to close. It is written by run and read by a goroutine of its own.
type connection struct {
	*socket
	conn    net.Conn
	to      *meteredWriter
	writer  *channel.Writer
	acks    *ackBook
	greeted chan struct{} // closed when the process's first magic has come
	over    chan struct{} // closed when reading has ended
	err     error         // why it has; valid when over is closed; nil for an orderly end

	usage *usageReports // of the reading goroutine
}

func newConnection(s *socket, conn net.Conn) *connection {
	if buffered, ok := conn.(*net.UnixConn); ok { // a pipe of Windows has its size from the listener
		_ = buffered.SetWriteBuffer(sendBuffer) // at worst it has the system's size
	}
	to := &meteredWriter{to: conn}
	return &connection{
		socket:  s,
		conn:    conn,
		to:      to,
		writer:  channel.NewWriter(to),
		acks:    newAckBook(),
		greeted: make(chan struct{}),
		over:    make(chan struct{}),
		usage:   &usageReports{},
	}
}

// run talks until the process leaves, breaks the protocol or does not read for too long, or ctx ends.
func (c *connection) run(ctx context.Context, first *handover) (left *handover, err error) {
	hangUp := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	defer hangUp()
	var reading sync.WaitGroup
	reading.Go(func() { c.receive(ctx) })
	left, err = c.write(ctx, first)
	c.acks.end()
	if err != nil && ctx.Err() == nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		pause(c.over, parting)
	}
	_ = c.conn.Close()
	reading.Wait()
	if c.err != nil {
		err = c.err
	}
	return left, err
}

// receive reads until the connection ends. A process that closes its half has left.
func (c *connection) receive(ctx context.Context) {
	defer close(c.over)
	defer c.conn.Close()
	defer c.usage.stop()
	if err := c.receiveAll(ctx); err != io.EOF { // as the reader returns it, bare, for an orderly end
		c.err = err
	}
}

func (c *connection) receiveAll(ctx context.Context) error {
	r := channel.NewReader(c.conn, channel.Config{Timeout: c.timing.channel})
	if err := r.ReadMagic(); err != nil {
		return err
	}
	close(c.greeted)
	for {
		m, err := r.Next()
		if err != nil {
			return err
		}
		c.take(ctx, m)
	}
}

// take brings one message of the process to where it belongs. No message for the agent itself goes further (G-45).
func (c *connection) take(ctx context.Context, m *fspb.Message) {
	switch {
	case channel.IsStartup(m):
		c.introduce(ctx, m)
	case channel.IsHeartbeat(m):
	case channel.IsSystem(m):
		c.drops.note("it is for the agent itself, of type %q", m.MessageType)
	default:
		c.forward(ctx, m)
	}
}

// forward sends a message. The process learns when the server has it, and nothing of one that stays on this machine or is
// refused.
func (c *connection) forward(ctx context.Context, m *fspb.Message) {
	if len(m.GetDestination().GetClientId()) > 0 {
		c.noteDrop(c.host.Send(ctx, m, nil))
		return
	}
	if len(m.SourceMessageId) == 0 {
		m.SourceMessageId = make([]byte, peerMessageIDSize)
		rand.Read(m.SourceMessageId)
	}
	id := m.SourceMessageId
	c.acks.expect(id)
	if err := c.host.Send(ctx, m, func() { c.acks.accept(id) }); err != nil {
		c.acks.forget(id)
		c.noteDrop(err)
	}
}

func (c *connection) noteDrop(err error) {
	if err != nil {
		c.drops.note("%v", err)
	}
}

// introduce takes a StartupData: from then on the process is measured.
func (c *connection) introduce(ctx context.Context, m *fspb.Message) {
	data, err := channel.ReadStartup(m)
	if err != nil {
		c.drops.note("its StartupData cannot be read: %v", err)
		return
	}
	pid := processNumber(data.Pid)
	c.state.introduced(pid, data.Version)
	if c.settings.usage && pid > 0 {
		c.usage.start(ctx, c.socket, pid, data.Version)
	}
}

// write writes until the connection ends, and returns the message that was not written to its end.
func (c *connection) write(ctx context.Context, first *handover) (left *handover, err error) {
	if err := c.within(c.writer.WriteMagic); err != nil {
		return first, err
	}
	select {
	case <-c.greeted:
	case <-c.over:
		return first, nil
	}
	if first != nil && first.wanted() {
		if left, err := c.send(first); err != nil {
			return left, err
		}
	}
	return c.writeOn(ctx)
}

func (c *connection) writeOn(ctx context.Context) (left *handover, err error) {
	var batch <-chan time.Time // receives when LocalAcks have gathered for long enough
	for {
		select {
		case h := <-c.counter:
			left, err = c.send(h)
		case <-c.acks.waiting:
			switch {
			case c.acks.many():
				batch, err = nil, c.sendAcks()
			case batch == nil:
				batch = time.After(c.timing.ackDelay)
			}
		case <-batch:
			batch = nil
			err = c.sendAcks()
		case <-c.over:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err != nil {
			return left, err
		}
	}
}

// send writes a message. An error is one of the connection; the message is returned then, to be sent on the next one, unless
// it may be what breaks connections.
func (c *connection) send(h *handover) (left *handover, err error) {
	before := c.to.written
	err = c.within(func() error { return c.writer.WriteMessage(h.message) })
	if err == nil || !c.to.failed {
		h.settle(err)
		return nil, nil
	}
	if c.to.written > before && !h.interrupted() {
		return nil, err
	}
	return h, err
}

func (c *connection) sendAcks() error {
	for {
		ids := c.acks.take()
		if len(ids) == 0 {
			return nil
		}
		err := c.within(func() error { return c.writer.WriteMessage(channel.LocalAck(ids)) })
		if err != nil && c.to.failed {
			return err
		}
		c.acks.forget(ids...)
	}
}

// within writes within the time that the protocol has for a message. A process that does not read for longer loses its
// connection to the next one.
func (c *connection) within(write func() error) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.timing.channel)); err != nil {
		return err
	}
	return write()
}

// meteredWriter knows how much was written, and whether a write failed.
type meteredWriter struct {
	to      io.Writer
	written uint64 // bytes
	failed  bool
}

func (w *meteredWriter) Write(b []byte) (int, error) {
	n, err := w.to.Write(b)
	w.written += uint64(n)
	w.failed = err != nil
	return n, err
}
