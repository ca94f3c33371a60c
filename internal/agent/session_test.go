package agent_test

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/agent"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

func TestFirstRecord(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "echo")
	n := s.next()
	if n.id != r.agent.ID() {
		t.Errorf("client ID %v, the agent is %v", n.id, r.agent.ID())
	}
	if want := map[string]uint64{"system": 100, "echo": 100}; !maps.Equal(n.first.data.AllowedMessages, want) {
		t.Errorf("grant is %v, want %v", n.first.data.AllowedMessages, want)
	}
	if want := []string{"amd64", "linux", "red"}; !slices.Equal(n.first.wrapped.ClientLabels, want) {
		t.Errorf("labels are %q, want %q", n.first.wrapped.ClientLabels, want)
	}
	if age := time.Since(n.first.data.ClientClock.AsTime()); age < 0 || age > time.Minute {
		t.Errorf("the clock is %v off", age)
	}
	infos := find(n.first, "ClientInfo")
	if len(infos) != 1 {
		t.Fatalf("record 0 has %v", n.first.data.Messages)
	}
	m := infos[0]
	if m.Priority != fspb.Message_HIGH || !m.Background || len(m.SourceMessageId) != 16 || len(m.MessageId) != 0 ||
		m.Source.GetServiceName() != "system" || !bytes.Equal(m.Source.ClientId, n.id.Bytes()) ||
		m.Destination.GetServiceName() != "system" || len(m.Destination.ClientId) != 0 || m.CreationTime != nil {
		t.Errorf("ClientInfo is %v", m)
	}
	info := unpack(t, m, &fspb.ClientInfoData{})
	if len(info.Services) != 1 || info.Services[0].Name != "echo" || len(info.Labels) != 3 || info.Labels[2].Label != "red" ||
		info.Labels[2].ServiceName != "client" {
		t.Errorf("ClientInfo says %v", info)
	}
}

func TestRequestHeaders(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	start(t, s, func(c *agent.Config) { c.Link.CertificateHeader = "Client-Certificate" })
	a := s.open().attempt
	for name, want := range map[string]string{"Expect": "100-continue", "Content-Encoding": "", "Content-Type": ""} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if a.proto != "HTTP/1.1" || a.length != -1 {
		t.Errorf("request is %s of length %d, want a chunked one of HTTP/1.1", a.proto, a.length)
	}
	if value := a.header.Get("Client-Certificate"); !strings.HasPrefix(value, "-----BEGIN%20CERTIFICATE-----%0AMII") {
		t.Errorf("certificate header is %q", value)
	}
	c := a.client
	if c.SerialNumber.Int64() != 1 || len(c.Subject.Organization) != 1 || c.Subject.String() != c.Issuer.String() ||
		c.NotBefore.Year() != 1 || c.KeyUsage != 0 || len(c.DNSNames) != 0 || c.Version != 3 {
		t.Errorf("certificate is %+v", c)
	}
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, func(c *agent.Config) { c.Link.PreferHTTP2 = true }, "echo")
	n := s.open()
	if n.attempt.proto != "HTTP/2.0" {
		t.Errorf("session on %s", n.attempt.proto)
	}
	records := n.ackAll()
	m := to(n, "echo", "hello", nil)
	n.push(m)
	receive(t, r.probe("echo").messages, "the message")
	if ids := acked(t, await(t, records, "MessageAck")); len(ids) != 1 || !bytes.Equal(ids[0], m.MessageId) {
		t.Errorf("acks of %x", ids)
	}
}

func TestMessageReachesServiceAndIsAcknowledged(t *testing.T) {
	t.Parallel()
	for _, deflate := range []bool{false, true} {
		s := newFakeServer(t)
		r := start(t, s, func(c *agent.Config) { c.Link.Deflate = deflate }, "echo")
		inFirst := s.next()
		m0 := to(inFirst, "echo", "in record 0", nil)
		inFirst.answer(m0)
		records := inFirst.ackAll()
		if got := receive(t, r.probe("echo").messages, "the message"); !proto.Equal(got, m0) {
			t.Errorf("got %v, want %v", got, m0)
		}
		rec := receive(t, records, "the ack")
		if ids := acked(t, find(rec, "MessageAck")[0]); len(ids) != 1 || !bytes.Equal(ids[0], m0.MessageId) {
			t.Errorf("acks of %x", ids)
		}
		if want := map[string]uint64{"system": 0, "echo": 1}; !maps.Equal(rec.data.AllowedMessages, want) {
			t.Errorf("increments are %v, want %v", rec.data.AllowedMessages, want)
		}
		if rec.data.SequencingNonce != 7 || rec.data.AckIndex != 0 {
			t.Errorf("nonce %d, ack index %d", rec.data.SequencingNonce, rec.data.AckIndex)
		}
	}
}

// A lone message leaves at once, not after a second of collecting.
func TestNoCollectingDelay(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "echo")
	n := s.open()
	records := n.ackAll()
	fastest := time.Hour // a busy machine may hold up some, but not all
	for i := range byte(5) {
		began := time.Now()
		r.send("echo", i, fspb.Message_MEDIUM)
		await(t, records, "numbered")
		fastest = min(fastest, time.Since(began))
	}
	if fastest > 500*time.Millisecond {
		t.Errorf("the fastest message took %v", fastest)
	}
}

func TestDoneSending(t *testing.T) { // G-59
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "echo")
	n := s.open()
	r.send("echo", 1, fspb.Message_MEDIUM)
	receive(t, n.records, "record 1")
	m := to(n, "echo", "beside it", nil)
	n.send(&fspb.ContactData{DoneSending: true, Messages: []*fspb.Message{m}})
	n.send(&fspb.ContactData{DoneSending: true, AckIndex: 1})
	n.send(&fspb.ContactData{DoneSending: true})
	if got := receive(t, r.probe("echo").messages, "the message beside it"); got.MessageType != "beside it" {
		t.Errorf("got %v", got)
	}
	for range n.records { // up to the end of the body
	}
	if n.readErr != nil {
		t.Errorf("the session ended with %v, want an orderly end", n.readErr)
	}
	next := s.open()
	if got := numbers(next.first); len(got) != 0 {
		t.Errorf("message %v came again", got)
	}
	if len(find(next.first, "MessageAck")) == 0 {
		await(t, next.records, "MessageAck")
	}
}

// waitUntil polls for something that has no event.
func waitUntil(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
		<-time.After(10 * time.Millisecond)
	}
}
