package peer

import (
	"bytes"
	"crypto/rand"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// inbox keeps what came and what is owed for it. It is guarded by the agent's mu.
type inbox struct {
	deliveries map[string]int    // by message ID
	tokens     map[string]uint64 // to be returned with the next record, by service
	dequeued   map[string]uint64 // ever, by service
	beacon     bool              // tokens are to be returned at once
	acks       [][]byte          // message IDs to acknowledge
	ackTimer   *time.Timer       // runs while acks are being collected
}

func (i *inbox) init() {
	i.deliveries = make(map[string]int)
	i.tokens = make(map[string]uint64)
	i.dequeued = make(map[string]uint64)
}

// receive takes the messages of one record of the server.
func (a *Agent) receive(messages []*fspb.Message) {
	var answers []*fspb.Message
	for _, m := range messages {
		if a.note(m) && a.cfg.Answer != nil && m.Destination.GetServiceName() != systemService {
			if answer := a.cfg.Answer(m); answer != nil {
				answers = append(answers, answer)
			}
		}
	}
	for _, answer := range answers {
		a.Send(answer)
	}
	if len(messages) > 0 {
		a.wakeSender()
	}
}

// note counts one message, acknowledges it, and returns its token. It is false for a message that is not for this agent.
func (a *Agent) note(m *fspb.Message) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	service := m.Destination.GetServiceName()
	switch {
	case service != systemService && !slices.Contains(a.cfg.Services, service):
		a.violatedLocked("message %x for service %q, which gave no tokens", m.MessageId, service)
		return false
	case !bytes.Equal(m.Destination.GetClientId(), a.key.ID()) && a.stats.Rekeys == 0:
		a.violatedLocked("message %x for client %x", m.MessageId, m.Destination.GetClientId())
		return false
	case len(m.MessageId) != 32 || m.Result != nil:
		a.violatedLocked("message with ID %x and result %v", m.MessageId, m.Result)
		return false
	}
	a.countLocked(m, service)
	if service == systemService && m.MessageType == "RekeyRequest" {
		a.rekeyLocked()
	}
	a.oweAckLocked(m.MessageId)
	return true
}

func (a *Agent) countLocked(m *fspb.Message, service string) {
	a.inbox.deliveries[string(m.MessageId)]++
	if a.inbox.deliveries[string(m.MessageId)] == 1 {
		a.stats.Received++
	} else {
		a.stats.Duplicates++
	}
	a.inbox.tokens[service]++
	a.inbox.dequeued[service]++
	if a.inbox.dequeued[service]%beaconEvery == 0 {
		a.inbox.beacon = true
	}
}

// rekeyLocked takes a new identity; the next connection uses it.
func (a *Agent) rekeyLocked() {
	key, err := NewKey()
	if err != nil {
		a.violatedLocked("rekey: %v", err)
		return
	}
	a.key = key
	a.stats.Rekeys++
	a.sendLocked(ClientInfo(a.cfg.Labels, a.cfg.Services))
}

// oweAckLocked collects acknowledgements from the first one on for AckDelay.
func (a *Agent) oweAckLocked(id []byte) {
	a.inbox.acks = append(a.inbox.acks, id)
	if len(a.inbox.acks) == 1 {
		a.inbox.ackTimer = time.AfterFunc(a.cfg.AckDelay, a.sendAcks)
	}
}

// sendAcks queues one MessageAck for what was collected.
func (a *Agent) sendAcks() {
	a.mu.Lock()
	ids := a.inbox.acks
	a.inbox.acks = nil
	if len(ids) > 0 {
		a.sendLocked(systemMessage("MessageAck", &fspb.MessageAckData{MessageIds: ids}))
	}
	a.mu.Unlock()
	a.wakeSender()
}

func (a *Agent) stopAckTimer() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.inbox.ackTimer != nil {
		a.inbox.ackTimer.Stop()
	}
}

// systemMessage is one from the agent itself to the server itself.
func systemMessage(messageType string, payload proto.Message) *fspb.Message {
	m := &fspb.Message{
		Source:          &fspb.Address{ServiceName: systemService},
		Destination:     &fspb.Address{ServiceName: systemService},
		SourceMessageId: make([]byte, 16),
		MessageType:     messageType,
		Priority:        fspb.Message_HIGH,
		Background:      true,
		Data:            &anypb.Any{},
	}
	_, _ = rand.Read(m.SourceMessageId) // never fails
	if err := m.Data.MarshalFrom(payload); err != nil {
		panic(err) // only for messages that no program can build
	}
	return m
}

// ClientInfo is the report of an agent that started or took a new key.
func ClientInfo(labels, services []string) *fspb.Message {
	info := &fspb.ClientInfoData{}
	for _, label := range labels {
		info.Labels = append(info.Labels, &fspb.Label{ServiceName: "client", Label: label})
	}
	for _, service := range services {
		info.Services = append(info.Services, &fspb.ClientInfoData_ServiceID{Name: service})
	}
	return systemMessage("ClientInfo", info)
}
