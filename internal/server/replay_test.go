package server_test

import (
	"bytes"
	"io"
	"net/http"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/clientcert"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/vectors"
	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// What the original's client said in recorded sessions is taken with the same meaning: the same answers, acknowledgements
// of all records in order, and every message under the ID that the original's server gave it.
func TestRecordedSessions(t *testing.T) {
	for _, name := range []string{"session-stream", "session-stream-deflate", "session-poll", "session-broadcast-close"} {
		t.Run(name, func(t *testing.T) {
			f := start(t, frontend(t, clientcert.Config{Mode: clientcert.CleartextHeader}))
			r := &replay{fixture: f, t: t, balancer: newBalancer(t, f.address, clientcert.CleartextHeader)}
			for _, connection := range vectors.Load(t, filepath.Join("..", "wire", "testdata", name+".jsonl")) {
				for _, e := range connection.Exchanges(t) {
					r.exchange(connection.Certificate, e)
				}
			}
			r.compare()
		})
	}
}

type replay struct {
	*fixture
	t        *testing.T
	balancer *balancer
	sent     []identity.MessageID // that the client's messages have
}

func (r *replay) exchange(certificate []byte, e vectors.Exchange) {
	r.t.Helper()
	header := http.Header{certificateHeader: {clientcert.EncodeHeader(certificate)}}
	if encoding := e.Request.Header.Get("Content-Encoding"); encoding != "" {
		header.Set("Content-Encoding", encoding)
	}
	switch e.Request.URL.Path {
	case "/message":
		r.poll(certificate, header, e)
	case "/streaming-message":
		r.stream(certificate, header, e)
	}
}

func (r *replay) poll(certificate []byte, header http.Header, e vectors.Exchange) {
	r.t.Helper()
	r.note(certificate, e.RequestBody)
	response := r.balancer.post("/message", header, bytes.NewReader(e.RequestBody))
	if response.StatusCode != e.Response.StatusCode {
		r.t.Fatalf("status %d, the original's was %d", response.StatusCode, e.Response.StatusCode)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	var answer fspb.ContactData
	if err := proto.Unmarshal(body, &answer); err != nil || answer.SequencingNonce == 0 {
		r.t.Errorf("answer %v, %v", &answer, err)
	}
}

func (r *replay) stream(certificate []byte, header http.Header, e vectors.Exchange) {
	r.t.Helper()
	records := r.records(e)
	for _, record := range records {
		r.note(certificate, record)
	}
	body, send := io.Pipe()
	defer send.Close()
	go func() { _, _ = send.Write(e.RequestBody) }()
	response := r.balancer.post("/streaming-message", header, body)
	if response.StatusCode != http.StatusOK {
		r.t.Fatalf("status %d", response.StatusCode)
	}
	reader := wire.NewRecordReader(response.Body, wire.FromServer(nil))
	for index := range records {
		data := r.next(reader)
		if index == 0 && (data.SequencingNonce == 0 || data.AckIndex != 0) {
			r.t.Errorf("record 0 is %v, want a nonce", data)
		}
		if data.AckIndex != uint64(index) {
			r.t.Errorf("acknowledgement %d for record %d", data.AckIndex, index)
		}
	}
}

// records takes the client's side of a session apart.
func (r *replay) records(e vectors.Exchange) (records [][]byte) {
	r.t.Helper()
	encoding, err := wire.DecodeEncoding(e.Request.Header)
	if err != nil {
		r.t.Fatal(err)
	}
	body, err := wire.NewBody(bytes.NewReader(e.RequestBody), encoding)
	if err != nil {
		r.t.Fatal(err)
	}
	reader := wire.NewRecordReader(body, wire.FromClient(nil))
	if err := reader.ReadMagic(); err != nil {
		r.t.Fatal(err)
	}
	for {
		record, err := reader.Next()
		if err == io.EOF {
			return records
		}
		if err != nil {
			r.t.Fatal(err)
		}
		records = append(records, bytes.Clone(record.Bytes()))
		record.Release()
	}
}

func (r *replay) next(reader *wire.RecordReader) *fspb.ContactData {
	r.t.Helper()
	record, err := reader.Next()
	if err != nil {
		r.t.Fatal(err)
	}
	defer record.Release()
	data := &fspb.ContactData{}
	if err := proto.Unmarshal(record.Bytes(), data); err != nil {
		r.t.Fatal(err)
	}
	return data
}

// note computes the IDs that the messages of a record have.
func (r *replay) note(certificate, body []byte) {
	r.t.Helper()
	who, err := clientOf(certificate)
	if err != nil {
		r.t.Fatal(err)
	}
	var wrapped fspb.WrappedContactData
	var data fspb.ContactData
	if err := proto.Unmarshal(body, &wrapped); err != nil {
		r.t.Fatal(err)
	}
	if err := proto.Unmarshal(wrapped.ContactData, &data); err != nil {
		r.t.Fatal(err)
	}
	for _, m := range data.Messages {
		r.sent = append(r.sent, identity.MessageIDFor(who, m.Source.ServiceName, m.SourceMessageId))
	}
}

// compare wants each message of the recording at the services, in order.
func (r *replay) compare() {
	r.t.Helper()
	taken := r.services.taken()
	if len(taken) != len(r.sent) {
		r.t.Fatalf("%d messages reached the services, the recording has %d", len(taken), len(r.sent))
	}
	for i, m := range taken {
		if !bytes.Equal(m.MessageId, r.sent[i].Bytes()) {
			r.t.Errorf("message %d has ID %x, want %s", i, m.MessageId, r.sent[i])
		}
	}
}
