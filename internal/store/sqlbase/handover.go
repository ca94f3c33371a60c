package sqlbase

import "github.com/farspeak/farspeak/internal/store"

// handedOut is a message as a server pushes it.
func (p *pending) handedOut() *store.PendingMessage {
	return &store.PendingMessage{
		ClientID: p.client, ID: p.id, Seq: p.seq, Service: p.message.GetDestination().GetServiceName(),
		Type: cutName(p.message.GetMessageType()), Attempts: int(p.attempt), Encoded: p.payload.whole,
	}
}

// handover is a message that was inserted for a target, with what the server that holds its session has to know to push it.
// It is nil when there is no session, or the database does not tell the message's number, and for what servers read
// themselves: large messages, and their own to rekey.
func (p *pending) handover(to target) *store.Handover {
	if to.streamingTo == "" || p.seq == 0 || p.kind != kindOrdinary || p.payload.size > store.MaxHandover {
		return nil
	}
	return &store.Handover{Message: p.handedOut(), After: to.newest, Contact: fromMicros(to.contact)}
}
