package server

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"

	"github.com/farspeak/farspeak/internal/wire"
)

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
	rec, err := n.server.decodeRecord(raw.Bytes(), n.memory)
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
	defer n.mu.Unlock()
	n.tokens.Add(returned)
	if n.starved || n.passedOver(returned) {
		n.starved = false
		n.markLocked() // before anything that is handed over can pass what was left
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
