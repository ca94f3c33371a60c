package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/farspeak/farspeak/internal/wire"
)

// pace is how much time the reading of a session has.
type pace uint8

const (
	paceOpening pace = iota // a deadline runs for the first byte
	paceRecord              // a deadline runs for the record that has begun
	paceIdle                // none runs: the next record may take as long as it likes to begin
)

// pacedReader gives a record a deadline from its first byte on, and none to the silence between records: an idle session
// has no timer. It belongs to the reading goroutine.
type pacedReader struct {
	stream stream
	pace   pace
}

// Read reads from the stream. Whoever waits for a record asks for one byte: the first of its length, or of a compressed
// piece. A larger read while idle is for a piece that has begun, and is in a decompressor in part.
func (p *pacedReader) Read(b []byte) (int, error) {
	if p.pace == paceIdle && len(b) > 1 {
		if err := p.begin(); err != nil {
			return 0, err
		}
	}
	n, err := p.stream.Read(b)
	if p.pace != paceRecord && n > 0 {
		if deadlineErr := p.begin(); err == nil {
			err = deadlineErr
		}
	}
	return n, err
}

func (p *pacedReader) begin() error {
	p.pace = paceRecord
	return p.stream.SetReadDeadline(time.Now().Add(recordTimeout))
}

// pacedBody is what a pacedReader's bytes decode to. A record may begin without a read from below: when its first bytes
// were compressed together with the record before it.
type pacedBody struct {
	io.ReadCloser
	below *pacedReader
}

func (b pacedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 && b.below.pace == paceIdle {
		if deadlineErr := b.below.begin(); err == nil {
			err = deadlineErr
		}
	}
	return n, err
}

// rest ends a record.
func (p *pacedReader) rest() error {
	p.pace = paceIdle
	return p.stream.SetReadDeadline(time.Time{})
}

// readRecords reads, processes and acknowledges records 1, 2, … in order until there is nothing to read (errParked) or the
// stream ends. It never acknowledges a record that failed, and it never skips one: the agent counts acknowledgements and
// ignores their numbers (G-06).
func (n *session) readRecords() error {
	for {
		if err := n.source.rest(); err != nil {
			return err
		}
		if n.parkable && n.stream.park(n.resume) {
			return errParked
		}
		if err := n.readRecord(n.records, n.index+1); err != nil {
			return err
		}
		n.index++
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
	tookKey, err := n.takeRecord(raw)
	if err != nil {
		refused := asRefusal(err)
		o.done(refused.status)
		n.server.note(refused, n.address)
		return refused
	}
	o.done(http.StatusOK)
	if err := n.acknowledge(index); err != nil {
		return err
	}
	if tookKey {
		n.leave() // agents use a new key from their next connection on
	}
	return nil
}

// takeRecord hands the messages of a record to their services. The record's share of the memory budget stands for them
// meanwhile, too.
func (n *session) takeRecord(raw *wire.Record) (tookKey bool, err error) {
	defer raw.Release()
	rec, err := n.server.decodeRecord(raw.Bytes())
	if err != nil {
		return false, err
	}
	defer rec.charge.release()
	n.addTokens(rec.data.AllowedMessages)
	tookKey = n.tookKey(rec) // asked before the messages belong to the services
	ctx, cancel := context.WithTimeout(n.server.life, recordTimeout)
	defer cancel()
	if err := n.server.ingest(ctx, n.sender(), rec); err != nil {
		return false, failed("the messages cannot be processed", err)
	}
	return tookKey, nil
}

// addTokens returns tokens to the session, and looks for messages that waited for them: those that the last fetch left
// behind, and those of services that it did not ask for. That a count was zero says nothing: messages that arrived between a
// read and its accounting would be forgotten.
func (n *session) addTokens(returned map[string]uint64) {
	if len(returned) == 0 {
		return
	}
	n.mu.Lock()
	n.tokens.Add(returned)
	wanted := n.starved || n.passedOver(returned)
	n.starved = false
	n.mu.Unlock()
	if wanted {
		n.mark()
	}
}

// passedOver says whether the last fetch asked for some services, and not for one of these. The caller holds mu.
func (n *session) passedOver(services map[string]uint64) bool {
	if n.asked == nil {
		return false
	}
	for service := range services {
		if !slices.Contains(n.asked, service) {
			return true
		}
	}
	return false
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
