package agent

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// recordedRequests returns the requests of the original agent in a recording.
func recordedRequests(t *testing.T, name string) []*http.Request {
	t.Helper()
	data, err := os.ReadFile("../wire/testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	connections := map[int]*bytes.Buffer{}
	var order []int
	for line := range bytes.Lines(data) {
		var read struct {
			Conn     int
			Dir, Hex string
		}
		if err := json.Unmarshal(line, &read); err != nil {
			t.Fatal(err)
		}
		if read.Dir != "client" {
			continue
		}
		if connections[read.Conn] == nil {
			connections[read.Conn] = &bytes.Buffer{}
			order = append(order, read.Conn)
		}
		connections[read.Conn].Write(unhex(t, read.Hex))
	}
	var out []*http.Request
	for _, conn := range order {
		in := bufio.NewReader(connections[conn])
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				break
			}
			body, _ := io.ReadAll(r.Body) // a stream ends without its last chunk
			r.Body = io.NopCloser(bytes.NewReader(body))
			out = append(out, r)
		}
	}
	return out
}

// TestRecordedSessionRequest: a session is asked for as the original does it, but for what only servers of ours look at and
// for compressed answers, which the protocol does not have.
func TestRecordedSessionRequest(t *testing.T) {
	var recorded *http.Request
	for _, r := range recordedRequests(t, "session-stream-deflate.jsonl") {
		if r.URL.Path == "/streaming-message" {
			recorded = r
		}
	}
	l := &link{cfg: LinkConfig{Deflate: true, Version: "test"}}
	s := &session{link: l, id: testIdentity(t), to: &endpoint{address: recorded.Host}}
	ours, err := s.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var sent bytes.Buffer
	if err := s.out.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ours.Write(&sent); err != nil {
		t.Fatal(err)
	}
	parsed, err := http.ReadRequest(bufio.NewReader(&sent))
	if err != nil {
		t.Fatal(err)
	}
	if parsed.URL.Path != recorded.URL.Path || parsed.Host != recorded.Host || parsed.Close != recorded.Close ||
		!slices.Equal(parsed.TransferEncoding, recorded.TransferEncoding) {
		t.Errorf("ours is %+v, recorded is %+v", parsed, recorded)
	}
	for _, name := range []string{"Expect", "Content-Encoding", "User-Agent"} {
		if got, want := parsed.Header.Get(name), recorded.Header.Get(name); got != want {
			t.Errorf("%s is %q, recorded is %q", name, got, want)
		}
	}
}

func testIdentity(t *testing.T) *Identity {
	t.Helper()
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	id, err := newIdentity(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestRecordedPolls: from the content of each recorded poll ours makes the same message again.
func TestRecordedPolls(t *testing.T) {
	polls := 0
	for _, r := range recordedRequests(t, "session-poll.jsonl") {
		if r.URL.Path != "/message" {
			continue
		}
		polls++
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		wrapped, data := &fspb.WrappedContactData{}, &fspb.ContactData{}
		if err := proto.Unmarshal(body, wrapped); err != nil {
			t.Fatal(err)
		}
		if err := proto.Unmarshal(wrapped.ContactData, data); err != nil {
			t.Fatal(err)
		}
		b := &batch{}
		for _, m := range data.Messages {
			raw, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			b.add(&parcel{raw: raw})
		}
		c := contact{nonce: data.SequencingNonce, clock: data.ClientClock.AsTime(), tokens: data.AllowedMessages,
			labels: wrapped.ClientLabels}
		ours, err := c.encode(b)
		if err != nil {
			t.Fatal(err)
		}
		if len(ours) != len(body) {
			t.Errorf("poll %d has %d bytes, recorded are %d", polls, len(ours), len(body))
		}
		again, content := &fspb.WrappedContactData{}, &fspb.ContactData{}
		if err := proto.Unmarshal(ours, again); err != nil {
			t.Fatal(err)
		}
		if err := proto.Unmarshal(again.ContactData, content); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(content, data) || !slices.Equal(again.ClientLabels, wrapped.ClientLabels) {
			t.Errorf("poll %d is %v, recorded is %v", polls, content, data)
		}
	}
	if polls < 10 {
		t.Errorf("%d polls found", polls)
	}
}

// TestRecordedSystemMessages: the agent's own messages have the fields of the original's.
func TestRecordedSystemMessages(t *testing.T) {
	found := map[string]*fspb.Message{}
	for _, r := range recordedRequests(t, "session-poll.jsonl") {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		wrapped, data := &fspb.WrappedContactData{}, &fspb.ContactData{}
		if r.URL.Path != "/message" || proto.Unmarshal(body, wrapped) != nil || proto.Unmarshal(wrapped.ContactData, data) != nil {
			continue
		}
		for _, m := range data.Messages {
			found[m.MessageType] = m
		}
	}
	for kind, payload := range map[string]proto.Message{
		typeClientInfo: &fspb.ClientInfoData{},
		typeMessageAck: &fspb.MessageAckData{},
	} {
		want := found[kind]
		if want == nil {
			t.Errorf("no %s is recorded", kind)
			continue
		}
		if err := want.Data.UnmarshalTo(payload); err != nil {
			t.Fatal(err)
		}
		from, err := identity.ClientIDFromBytes(want.Source.ClientId)
		if err != nil {
			t.Fatal(err)
		}
		got := systemMessage(from, kind, fspb.Message_HIGH, payload)
		got.SourceMessageId = want.SourceMessageId
		if !proto.Equal(got, want) {
			t.Errorf("ours is %v, recorded is %v", got, want)
		}
	}
}

// TestRecordedCertificate: ours differs from the original's in key, name and end only.
func TestRecordedCertificate(t *testing.T) {
	id := testIdentity(t)
	leaf := id.certificate.Leaf
	if leaf.NotAfter != noExpiry || !leaf.NotBefore.Equal(time.Time{}) || leaf.Subject.Organization[0] != id.ID.String() ||
		len(leaf.Extensions) != 0 || leaf.SerialNumber.Int64() != 1 || leaf.CheckSignature(leaf.SignatureAlgorithm,
		leaf.RawTBSCertificate, leaf.Signature) != nil {
		t.Errorf("certificate is %+v", leaf)
	}
	if value := id.headerValue(); strings.ContainsAny(value, "\n /") || !strings.HasPrefix(value, "-----BEGIN%20CERTIFICATE-----%0A") {
		t.Errorf("header is %q", value)
	}
}
