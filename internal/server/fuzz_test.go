package server_test

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/clientcert"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/vectors"
	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// undisturbed is a server that serves nobody and has no store: enough for what needs neither.
func undisturbed(t testing.TB) *server.Server {
	t.Helper()
	extractor, err := clientcert.New(clientcert.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(server.Config{
		Store: struct{ server.Store }{}, Services: &recorder{}, Listener: newPipeListener(), Certificates: extractor,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(s) })
	return s
}

// FuzzContact decodes and checks what a client may send as a contact. Whatever it is, it ends in messages that can be
// routed, or in an error.
func FuzzContact(f *testing.F) {
	for _, name := range []string{"session-stream", "session-poll"} {
		for _, connection := range vectors.Load(f, filepath.Join("..", "wire", "testdata", name+".jsonl")) {
			for _, e := range connection.Exchanges(f) {
				f.Add(plainContact(e))
			}
		}
	}
	agent := newTestAgent(f, "")
	f.Add(agent.wrap(manyMessages(3)))
	f.Add(agent.marshal(&fspb.WrappedContactData{
		ContactData: []byte{0x08, 0x05}, Signatures: []*fspb.Signature{{Algorithm: 10, Signature: []byte("x")}},
	}))
	f.Add(slices.Repeat([]byte{0x12, 0x00}, 100))
	f.Add(agent.wrap(&fspb.ContactData{Messages: []*fspb.Message{emptyIDs(f, 100)}}))
	s := undisturbed(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		var wrapped fspb.WrappedContactData
		var data fspb.ContactData
		valid := proto.Unmarshal(body, &wrapped) == nil && proto.Unmarshal(wrapped.ContactData, &data) == nil
		count, err := server.Decode(s, body)
		switch {
		case err == nil && !valid:
			t.Error("decoded what is no contact")
		case err == nil && count > min(len(data.Messages), wire.MaxMessagesPerRecord):
			t.Errorf("%d of %d messages go to services", count, len(data.Messages))
		}
	})
}

// plainContact is the first contact of a recorded exchange.
func plainContact(e vectors.Exchange) []byte {
	if e.Request.URL.Path != "/streaming-message" {
		return e.RequestBody
	}
	reader := wire.NewRecordReader(bytes.NewReader(e.RequestBody), wire.FromClient(nil))
	if reader.ReadMagic() != nil {
		return nil
	}
	record, err := reader.Next()
	if err != nil {
		return nil
	}
	return record.Bytes()
}
