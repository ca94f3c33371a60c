package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/farspeak/farspeak/internal/wire"
)

// pacedReader gives a record a deadline from its first byte on, and none to the silence between records: an idle session
// has no timer.
type pacedReader struct {
	stream stream
	idle   bool // owned by the reading goroutine
}

func (p *pacedReader) Read(b []byte) (int, error) {
	n, err := p.stream.Read(b)
	if p.idle && n > 0 {
		p.idle = false
		if deadlineErr := p.stream.SetReadDeadline(time.Now().Add(recordTimeout)); deadlineErr != nil && err == nil {
			err = deadlineErr
		}
	}
	return n, err
}

// rest ends a record: the next one may take as long as it likes to begin.
func (p *pacedReader) rest() error {
	p.idle = true
	return p.stream.SetReadDeadline(time.Time{})
}

// readRecords reads, processes and acknowledges records 1, 2, … in order until the stream ends. It never acknowledges a
// record that failed, and it never skips one: the agent counts acknowledgements and ignores their numbers (G-06).
func (n *session) readRecords(source *pacedReader, reader *wire.RecordReader) error {
	for index := uint64(1); ; index++ {
		if err := source.rest(); err != nil {
			return err
		}
		if err := n.readRecord(reader, index); err != nil {
			return err
		}
	}
}

// readRecord handles one record.
func (n *session) readRecord(reader *wire.RecordReader, index uint64) error {
	raw, err := reader.Next()
	if err != nil {
		return err
	}
	o := n.server.metrics.observePoll(pollTypeStreamFrom)
	o.read(len(raw.Bytes()))
	rec, err := n.server.decode(raw.Bytes())
	raw.Release()
	if err != nil {
		refused := asRefusal(err)
		o.done(refused.status)
		n.server.note(refused, n.address)
		return err
	}
	n.addTokens(rec.data.AllowedMessages)
	ctx, cancel := context.WithTimeout(n.server.life, recordTimeout)
	defer cancel()
	if err := n.server.ingest(ctx, n.sender(), rec); err != nil {
		refused := failed("the messages cannot be processed", err)
		o.done(refused.status)
		n.server.note(refused, n.address)
		return refused
	}
	o.done(200)
	if err := n.acknowledge(index); err != nil {
		return err
	}
	if n.tookKey(rec) {
		n.leave() // agents use a new key from their next connection on
	}
	return nil
}

// addTokens returns tokens to the session, and looks for messages that waited for them. The mark is set whenever something
// may wait, not only when a count rises from zero: messages that arrived between a read and its accounting would be
// forgotten otherwise.
func (n *session) addTokens(returned map[string]uint64) {
	if len(returned) == 0 {
		return
	}
	n.mu.Lock()
	n.tokens.Add(returned)
	starved := n.starved
	n.starved = false
	n.mu.Unlock()
	if starved {
		n.mark()
	}
}

// endReason names why a session broke, for the metric.
func endReason(err error) string {
	var r *refusal
	switch {
	case errors.As(err, &r):
		return r.reason
	case errors.Is(err, wire.ErrProtocol):
		return "malformed"
	case errors.Is(err, wire.ErrBudget):
		return "memory"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	}
	return "connection"
}

// errSilent says that a session takes no more pushes.
var errSilent = errors.New("the session takes no more messages")

// write sends one record, prepared by build, under a deadline that fits its size.
func (n *session) write(size int, build func([]byte) []byte) error {
	n.writing.Lock()
	defer n.writing.Unlock()
	deadline := time.Now().Add(pushTimeout + time.Duration(size/pushRate)*time.Second)
	if err := n.stream.SetWriteDeadline(deadline); err != nil {
		return err
	}
	if _, err := n.stream.Write(build(make([]byte, 0, size))); err != nil {
		return fmt.Errorf("writing to the client: %w", err)
	}
	return nil
}
