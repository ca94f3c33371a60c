package peer

import (
	"crypto/rand"

	"google.golang.org/protobuf/proto"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// outbox holds what the server did not acknowledge yet. It is guarded by the agent's mu.
type outbox struct {
	waiting      []*fspb.Message // to be sent
	acknowledged []string        // message IDs, those of "system" messages left out
}

// take removes the messages of the next record.
func (o *outbox) take() []*fspb.Message {
	n := min(len(o.waiting), maxRecordMessages)
	taken := o.waiting[:n:n]
	o.waiting = o.waiting[n:]
	return taken
}

// Send queues a message for the server. The source is filled in, and the source message ID unless it is there.
func (a *Agent) Send(message *fspb.Message) {
	m := proto.CloneOf(message)
	if len(m.SourceMessageId) == 0 {
		m.SourceMessageId = make([]byte, 16)
		_, _ = rand.Read(m.SourceMessageId) // never fails
	}
	a.mu.Lock()
	a.sendLocked(m)
	a.mu.Unlock()
	a.wakeSender()
}

func (a *Agent) sendLocked(m *fspb.Message) {
	if m.Source == nil {
		m.Source = &fspb.Address{}
	}
	m.Source.ClientId = a.key.ID()
	a.stats.Sent++
	a.outbox.waiting = append(a.outbox.waiting, m)
}

func (a *Agent) wakeSender() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// accepted notes that the server, which knew the agent under key, took these messages.
func (a *Agent) accepted(key *Key, messages []*fspb.Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stats.Acknowledged += len(messages)
	for _, m := range messages {
		if service := m.Source.GetServiceName(); service != systemService {
			a.outbox.acknowledged = append(a.outbox.acknowledged, string(key.MessageID(service, m.SourceMessageId)))
		}
	}
}

// requeue puts messages back that were sent and not acknowledged.
func (a *Agent) requeue(messages []*fspb.Message) {
	if len(messages) == 0 {
		return
	}
	a.mu.Lock()
	a.outbox.waiting = append(append([]*fspb.Message(nil), messages...), a.outbox.waiting...)
	a.mu.Unlock()
	a.wakeSender()
}
