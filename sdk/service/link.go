package service

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/farspeak/farspeak/internal/channel"
)

// errLinkEnded ends a writer whose reader has ended.
var errLinkEnded = errors.New("reader ended")

// link is one connection of a Socket.
type link struct {
	socket *Socket
	conn   net.Conn

	ready    chan struct{} // closed when the agent's magic has come
	writeEnd chan struct{} // closed when the writer has ended
	readEnd  chan struct{} // closed when the reader ends; readErr is set then
	readErr  error         // nil when the connection was closed on our side
}

func newLink(s *Socket, conn net.Conn) *link {
	return &link{
		socket: s, conn: conn,
		ready: make(chan struct{}), writeEnd: make(chan struct{}), readEnd: make(chan struct{}),
	}
}

// read takes what the agent sends, until the connection ends.
func (l *link) read(ctx context.Context) {
	defer close(l.readEnd)
	defer l.conn.Close() // ends a write
	err := l.receive(ctx)
	if !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, context.Canceled) {
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
		if err := l.awaitTurn(ctx); err != nil {
			return err
		}
		m, err := r.Next()
		if err != nil {
			return err
		}
		if !channel.IsLocalAck(m) {
			l.socket.inbox.put(m) // also when the connection has ended meanwhile: for the server it is delivered
			continue
		}
		ids, err := channel.ReadLocalAck(m)
		if err != nil {
			return err
		}
		l.socket.kept.acknowledge(ids)
	}
}

// awaitTurn waits until another message may be read. A program that does not receive its messages must not keep the reader
// from what somebody waits for: an acknowledgement, or the end of a connection that cannot be written to.
func (l *link) awaitTurn(ctx context.Context) error {
	inbox, kept := l.socket.inbox, l.socket.kept
	leaving, writeEnd := false, l.writeEnd
	for began := time.Now(); ; {
		pace := inbox.pace(leaving || kept.urgent())
		left := pace - time.Since(began)
		if pace != never && (left <= 0 || leaving) {
			return nil
		}
		var turn <-chan time.Time
		if pace != never {
			turn = time.After(left)
		}
		select {
		case <-turn:
		case <-inbox.taken:
		case <-kept.wanted:
		case <-writeEnd:
			leaving, writeEnd = true, nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// part waits for the reader when the writer has ended, for as long as an agent that has gone may take.
func (l *link) part(ctx context.Context) {
	timer := time.NewTimer(parting)
	defer timer.Stop()
	select {
	case <-l.readEnd:
	case <-timer.C:
	case <-ctx.Done():
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
