// Package backend is for authors of backends: programs that give messages to clients and take what clients send. It works
// with Farspeak and with the original Fleetspeak alike.
//
//	Submitter ──InsertMessage──► fs-admin ─ … ─► client
//	Processor ◄────Process────── fs-server ◄ … ─ client
//
// A Submitter gives a message to fs-admin, again and again until it is stored. A Processor takes messages for a number of
// services from fs-server; that a service is here is written in the services file of fs-server, with the factory GRPC.
//
// # What to expect
//
// Submitting is idempotent: the ID of a message is fixed before the first try, and two messages with one ID are one.
//
// Delivery is at least once, in both directions. A handler must bear to see a message twice, and may tell by the message
// ID. A message from a client carries no reference to the one that caused it, unless the service on the client puts one
// into the payload. Messages come in no order.
package backend

import (
	"crypto/rand"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// MaxMessage is the largest serialized message to a client, in bytes.
	MaxMessage = 2 << 20
	// MessageIDSize is the size of a message ID in bytes.
	MessageIDSize = 32
)

// NewMessage makes a message to a service on a client, under a fresh ID. data may be nil.
func NewMessage(clientID []byte, service, messageType string, data proto.Message) (*fspb.Message, error) {
	m := &fspb.Message{
		MessageId:   newMessageID(),
		Destination: &fspb.Address{ClientId: clientID, ServiceName: service},
		MessageType: messageType,
	}
	if data == nil {
		return m, nil
	}
	var err error
	if m.Data, err = anypb.New(data); err != nil {
		return nil, fmt.Errorf("message of type %q: %w", messageType, err)
	}
	return m, nil
}

func newMessageID() []byte {
	id := make([]byte, MessageIDSize)
	_, _ = rand.Read(id) // never fails
	return id
}
