package service

import (
	"context"
	"errors"
	"io"
	"net"
	"os"

	"github.com/farspeak/farspeak/internal/channel"
)

// errLinkEnded ends a writer whose reader has ended.
var errLinkEnded = errors.New("reader ended")

// link is one connection of a Socket.
type link struct {
	socket *Socket
	conn   net.Conn

	ready   chan struct{} // closed when the agent's magic has come
	readEnd chan struct{} // closed when the reader ends; readErr is set then
	readErr error         // nil when the connection was closed on our side
}

// read takes what the agent sends, until the connection ends.
func (l *link) read(ctx context.Context) {
	defer close(l.readEnd)
	defer l.conn.Close() // ends a write
	err := l.receive(ctx)
	if !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
		l.readErr = err
	}
}

func (l *link) receive(ctx context.Context) error {
	r := channel.NewReader(l.conn, channel.Config{})
	if err := r.ReadMagic(); err != nil {
		return err
	}
	close(l.ready)
	for {
		m, err := r.Next()
		if err != nil {
			return err
		}
		if channel.IsLocalAck(m) {
			ids, err := channel.ReadLocalAck(m)
			if err != nil {
				return err
			}
			l.socket.kept.acknowledge(ids)
			continue
		}
		select {
		case l.socket.received <- m: // also when the connection has ended meanwhile: for the server it is delivered
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// write introduces this process and writes messages, until the connection ends. Everything that is kept goes first:
// whether the connection before delivered it is not known.
func (l *link) write() error {
	w := channel.NewWriter(l.conn)
	if err := w.WriteMagic(); err != nil {
		return err
	}
	select {
	case <-l.ready:
	case <-l.readEnd:
		return errLinkEnded
	}
	if err := w.WriteMessage(channel.Startup(int64(os.Getpid()), l.socket.cfg.Version)); err != nil {
		return err
	}
	kept := l.socket.kept
	kept.rewind()
	for {
		if frame := kept.take(); frame != nil {
			if _, err := l.conn.Write(frame); err != nil {
				return err
			}
			continue
		}
		select {
		case <-kept.work:
		case <-l.readEnd:
			return errLinkEnded
		}
	}
}
