package service

import (
	"context"
	"errors"
	"io"

	"github.com/farspeak/farspeak/internal/channel"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// deliver writes to the process: the first magic at once, and messages as soon as the process's own has come. It ends when
// the process is to end, or takes no more.
func (c *child) deliver() {
	if err := c.out.writer.WriteMagic(); err != nil {
		c.broken <- err
		return
	}
	select {
	case <-c.greeted:
	case <-c.closing:
		return
	}
	for h := c.next(); h != nil; h = c.next() {
		if err := c.send(h); err != nil {
			c.broken <- err
			return
		}
	}
}

// next returns the next message for the process, or nil when there will be none. Those of its predecessor come first.
func (c *child) next() *handover {
	for {
		if len(c.queue) == 0 {
			select {
			case h := <-c.counter:
				return h
			case <-c.closing:
				return nil
			}
		}
		h := c.queue[0]
		c.queue = c.queue[1:]
		if h.wanted() {
			return h
		}
	}
}

func (c *child) send(h *handover) error {
	end := c.activity.begin()
	defer end()
	return c.out.send(h)
}

// receive reads from the process until the channel ends.
func (c *child) receive(ctx context.Context) {
	err := c.receiveAll(ctx)
	if errors.Is(err, io.EOF) {
		err = errClosed
	}
	c.broken <- err
}

func (c *child) receiveAll(ctx context.Context) error {
	r := channel.NewReader(c.in, channel.Config{
		Timeout:    c.timing.channel,
		FirstMagic: c.started.Add(c.timing.channel),
		Expired:    c.group.kill,
	})
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

// take brings one message of the process to where it belongs. The process gets neither acknowledgement nor error; while the
// outbox is full it is not read from.
func (c *child) take(ctx context.Context, m *fspb.Message) {
	endActivity, endHeard := c.activity.begin(), c.heard.begin()
	defer endActivity()
	defer endHeard()
	c.out.forget()
	switch {
	case channel.IsStartup(m):
		c.introduce(m)
	case channel.IsHeartbeat(m):
	case channel.IsSystem(m):
		c.drops.note("it is for the agent itself, of type %q", m.MessageType)
	default:
		if err := c.host.Send(ctx, m, nil); err != nil {
			c.drops.note("%v", err)
		}
	}
}
