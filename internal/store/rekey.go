package store

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// RekeyRequest returns the message that asks a blacklisted client to take a new key. It has one ID for a client, so that
// storing it again, by whichever daemon, changes nothing (G-10).
func RekeyRequest(client identity.ClientID) *fspb.Message {
	return &fspb.Message{
		MessageId:    identity.RekeyMessageID(client).Bytes(),
		Source:       &fspb.Address{ServiceName: "system"},
		Destination:  &fspb.Address{ClientId: client.Bytes(), ServiceName: "system"},
		MessageType:  "RekeyRequest",
		CreationTime: timestamppb.Now(),
	}
}
