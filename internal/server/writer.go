package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/wire"
)

// systemService is the built-in service on both ends.
const systemService = "system"

// flagRecord is room for a record that holds one number.
const flagRecord = 16

// errSilent says that a session takes no more of what was to be written.
var errSilent = errors.New("the session takes no more messages")

// write sends one record in a time that fits its size, unless the session does not want it any more. That is asked
// last of all, so that nothing follows a done_sending.
func (n *session) write(record []byte, wanted func() bool) error {
	n.writing.Lock()
	defer n.writing.Unlock()
	if n.closed || !wanted() {
		return errSilent
	}
	if err := n.stream.BoundWrites(pushTimeout + time.Duration(len(record)/pushRate)*time.Second); err != nil {
		return err
	}
	if _, err := n.stream.Write(record); err != nil {
		return fmt.Errorf("writing to the client: %w", err)
	}
	_ = n.stream.BoundWrites(0) // the record is out; whoever cut the stream meanwhile wins
	return nil
}

func always() bool { return true }

// answer writes the response header and record 0: the nonce, and what is due. It acknowledges record 0 of the client. When
// the queue cannot be read the session starts without messages; they follow by mark.
func (n *session) answer(ctx context.Context, o *pollObservation) error {
	held := int64(0)
	defer func() { n.server.fetchedMemory.give(held) }()
	messages := n.firstMessages(ctx, &held)
	record := contactRecord(n.nonce, messages)
	n.stream.start() // nobody else writes before the session is open
	o.writing(len(record))
	err := n.write(record, always)
	o.done(http.StatusOK)
	n.server.metrics.sent(messages)
	return err
}

// firstMessages is what goes along with record 0. The memory that is to be given back once it is written is put into held.
func (n *session) firstMessages(ctx context.Context, held *int64) []*store.PendingMessage {
	if n.refusedAtStart() {
		return []*store.PendingMessage{n.server.rekeyRequest(ctx, n.id)}
	}
	due, err := n.firstFetch(ctx)
	if err == nil && due != nil {
		weight := weigh(due.Messages)
		if n.server.fetchedMemory.tryTake(weight) {
			*held = weight
		} else {
			err = errNoPushMemory
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.turn++ // a fetch that is still on its way for this answer comes too late
	if err != nil {
		n.again = true
		return nil
	}
	if due == nil {
		return nil
	}
	if i := slices.IndexFunc(due.Messages, n.isRekey); i >= 0 { // blacklisted since its contact was recorded
		n.blacklisted, n.rekeyed = true, true
		return due.Messages[i : i+1]
	}
	fit := due.Messages[:fitting(due.Messages, n.server.cfg.MaxPushBytes)]
	taken, left := n.takeLocked(fit)
	n.again = n.again || left || due.More || len(fit) < len(due.Messages)
	n.opening.first = n.plan(taken)
	return taken
}

// firstFetch reads what is due for the client. For one that was unknown before its contact there cannot be anything but what
// came since, and that marks the session.
func (n *session) firstFetch(ctx context.Context) (*store.DueMessages, error) {
	n.mu.Lock()
	fresh := n.fresh
	n.mu.Unlock()
	if fresh {
		return nil, nil
	}
	return n.server.fetches.Do(ctx, fetchTurn{session: n})
}

// refusedAtStart says whether the answer is the request to take a new key.
func (n *session) refusedAtStart() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rekeyed = n.blacklisted
	return n.blacklisted
}

// acknowledge tells the client that its record with this index is done. Acknowledgements go alone, like all records of the
// original.
func (n *session) acknowledge(index uint64) error {
	return n.write(wire.AppendAck(make([]byte, 0, flagRecord), index), always)
}

// push sends messages as one record, if the session wants them.
func (n *session) push(messages []*store.PendingMessage, wanted func() bool) error {
	o := n.server.metrics.observePoll(pollTypeStreamTo)
	record := contactRecord(n.nonce, messages)
	o.writing(len(record))
	if err := n.write(record, wanted); err != nil {
		return fmt.Errorf("pushing %d messages: %w", len(messages), err)
	}
	o.done(http.StatusOK)
	n.server.metrics.sent(messages)
	return nil
}

// pushAll sends messages in as many records as their size asks for, and returns those that went out. When a write fails the
// session is over.
func (n *session) pushAll(messages []*store.PendingMessage) (sent []*store.PendingMessage) {
	for rest := messages; len(rest) > 0; {
		count := fitting(rest, n.server.cfg.MaxPushBytes)
		if err := n.push(rest[:count], n.takesPushes); err != nil {
			if !errors.Is(err, errSilent) {
				n.stream.abort() // the reader sees it and ends the session
			}
			return messages[:len(messages)-len(rest)]
		}
		rest = rest[count:]
	}
	return messages
}

// sayDone tells the client that nothing more is pushed, once and alone in its record: the original crashes on a second one
// and may overlook what comes with it (G-59).
func (n *session) sayDone() error {
	return n.write(wire.AppendDoneSending(make([]byte, 0, flagRecord)), always)
}

// contactRecord is a record of a nonce and messages, made in one piece.
func contactRecord(nonce uint64, messages []*store.PendingMessage) []byte {
	encoded := encodings(messages)
	size := len(wire.AppendContactData(nil, nonce, nil))
	for _, message := range encoded {
		size += wire.MessageSize(len(message))
	}
	record := make([]byte, 0, binary.MaxVarintLen64+size)
	return wire.AppendContactData(binary.AppendUvarint(record, uint64(size)), nonce, encoded)
}

func encodings(messages []*store.PendingMessage) [][]byte {
	encoded := make([][]byte, len(messages))
	for i, m := range messages {
		encoded[i] = m.Encoded
	}
	return encoded
}

// fitting is how many of messages go into one record of at most limit bytes: at least one, at most maxMessagesPerPush.
func fitting(messages []*store.PendingMessage, limit int) int {
	size := 0
	for i, m := range messages {
		size += wire.MessageSize(len(m.Encoded))
		if i == maxMessagesPerPush || (i > 0 && size > limit) {
			return i
		}
	}
	return len(messages)
}
