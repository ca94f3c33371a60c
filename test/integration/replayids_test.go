package integration_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/test/harness"
	"github.com/farspeak/farspeak/test/peer"
)

// recordedIDs are the identities that the original's server gave.
type recordedIDs struct {
	Clients []struct {
		Certificate string `json:"certificate_der"`
		ID          string `json:"client_id"`
	} `json:"client_ids"`
	Messages []struct {
		Client          string `json:"client_id"`
		Service         string `json:"service_name"`
		SourceMessageID string `json:"source_message_id"`
		ID              string `json:"message_id"`
	} `json:"message_ids"`
}

func (r *replay) ids() (ids recordedIDs) {
	r.t.Helper()
	text, err := os.ReadFile(identities)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := json.Unmarshal(text, &ids); err != nil {
		r.t.Fatal(err)
	}
	return ids
}

// clientID is the recorded ID of the client that presented a certificate.
func (r *replay) clientID(certificate []byte) []byte {
	r.t.Helper()
	for _, client := range r.ids().Clients {
		if client.Certificate == hex.EncodeToString(certificate) {
			id, err := hex.DecodeString(client.ID)
			if err != nil {
				r.t.Fatal(err)
			}
			return id
		}
	}
	r.t.Fatalf("%s has no client with the certificate %x", identities, certificate)
	return nil
}

// checkIDs finds the clients under their recorded IDs, and their messages at the backend under theirs.
func (r *replay) checkIDs() {
	r.t.Helper()
	var want, got []string
	for _, certificate := range r.presented {
		want = append(want, hex.EncodeToString(r.clientID(certificate)))
	}
	slices.Sort(want)
	want = slices.Compact(want)
	for _, client := range r.admin.MustListClients(r.t) {
		got = append(got, hex.EncodeToString(client.ClientId))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		r.t.Errorf("clients %v, recorded %v", got, want)
	}
	for _, u := range r.uploaded {
		r.checkUpload(u)
	}
}

func (r *replay) checkUpload(u upload) {
	r.t.Helper()
	if u.message.Destination.ServiceName == "system" {
		return
	}
	client := r.clientID(u.certificate)
	service, source := u.message.Source.ServiceName, u.message.SourceMessageId
	id := peer.MessageID(client, service, source)
	for _, known := range r.ids().Messages {
		if known.Client == hex.EncodeToString(client) && known.SourceMessageID == hex.EncodeToString(source) && known.ID != hex.EncodeToString(id) {
			r.t.Errorf("message ID %x, recorded %s", id, known.ID)
		}
	}
	harness.Eventually(r.t, promptly, "message at the backend", func() error {
		if r.backend.Message(id) == nil {
			return fmt.Errorf("no message %x", id)
		}
		return nil
	})
	if got := r.backend.Message(id); !proto.Equal(got.Data, u.message.Data) || got.MessageType != u.message.MessageType {
		r.t.Errorf("the backend got %v, recorded %v", got, u.message)
	}
}
