package server

import (
	"context"
	"fmt"

	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/wire"
)

// systemService is the built-in service on both ends.
const systemService = "system"

// recordOverhead is what a record needs around its messages, generously.
const recordOverhead = 64

// answer writes the response header and record 0: the nonce, and what is due. It acknowledges record 0 of the client. When
// the queue cannot be read the session starts without messages; they follow by mark.
func (n *session) answer(ctx context.Context, o *pollObservation) error {
	messages := n.firstMessages(ctx)
	body := wire.AppendContactData(nil, n.nonce, encodings(messages))
	n.writing.Lock()
	err := n.stream.start()
	n.writing.Unlock()
	if err != nil {
		return err
	}
	o.writing(len(body))
	err = n.write(len(body)+recordOverhead, func(dst []byte) []byte { return wire.AppendRecord(dst, body) })
	o.done(200)
	n.server.metrics.sent(messages)
	return err
}

// firstMessages is what goes along with record 0.
func (n *session) firstMessages(ctx context.Context) []*store.PendingMessage {
	n.mu.Lock()
	refused := n.blacklisted
	n.rekeyed = refused
	n.mu.Unlock()
	if refused {
		return []*store.PendingMessage{n.server.rekeyRequest(ctx, n.id)}
	}
	due, err := n.server.fetches.Do(ctx, n)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.again = true
	}
	if due == nil {
		return nil
	}
	fit := due.Messages[:fitting(due.Messages, n.server.cfg.MaxPushBytes)]
	taken, left := takeTokens(&n.tokens, fit)
	n.starved = n.starved || left
	n.again = n.again || left || due.More || len(fit) < len(due.Messages)
	n.first = taken
	return taken
}

// acknowledge tells the client that its record with this index is done. Acknowledgements go alone, like all records of the
// original.
func (n *session) acknowledge(index uint64) error {
	return n.write(recordOverhead, func(dst []byte) []byte { return wire.AppendAck(dst, index) })
}

// push sends messages as one record.
func (n *session) push(messages []*store.PendingMessage) error {
	o := n.server.metrics.observePoll(pollTypeStreamTo)
	body := wire.AppendContactData(nil, n.nonce, encodings(messages))
	o.writing(len(body))
	err := n.write(len(body)+recordOverhead, func(dst []byte) []byte { return wire.AppendRecord(dst, body) })
	o.done(200)
	if err != nil {
		return fmt.Errorf("pushing %d messages: %w", len(messages), err)
	}
	n.server.metrics.sent(messages)
	return nil
}

// sayDone tells the client that nothing more is pushed, once and alone in its record: the original crashes on a second one
// and may overlook what comes with it (G-59).
func (n *session) sayDone() error {
	return n.write(recordOverhead, wire.AppendDoneSending)
}

func encodings(messages []*store.PendingMessage) [][]byte {
	encoded := make([][]byte, len(messages))
	for i, m := range messages {
		encoded[i] = m.Encoded
	}
	return encoded
}
