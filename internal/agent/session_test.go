package agent_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/agent"
	"github.com/farspeak/farspeak/internal/wire"
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

// A server that goes away between record 0 and its answer is noticed at once.
func TestServerDiesBeforeItAnswers(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]int{"before record 0": 0, "within record 0": 2, "after record 0": 20} {
		s := newFakeServer(t)
		var died atomic.Bool
		s.setRefuse(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/streaming-message" || died.Swap(true) {
				return false
			}
			if _, err := io.ReadFull(r.Body, make([]byte, last)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return true
			}
			_ = conn.Close()
			return true
		})
		start(t, s, nil, "echo")
		s.open()
		if got := len(s.requests("/streaming-message")); got != 2 {
			t.Errorf("%s: %d attempts, want 2", name, got)
		}
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

func numbers(r record) []byte {
	var out []byte
	for _, m := range find(r, "numbered") {
		out = append(out, m.SourceMessageId...)
	}
	return out
}

// Against a server whose acknowledgements say nothing about their record, one record is under way at a time, and what was
// not acknowledged is sent again, with the same IDs and in the same order.
func TestUnacknowledgedRecordsAreSentAgain(t *testing.T) { // G-06
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "echo")
	n := s.open()
	r.send("echo", 1, fspb.Message_MEDIUM)
	if got := numbers(receive(t, n.records, "record 1")); !bytes.Equal(got, []byte{1}) {
		t.Fatalf("record 1 has %v", got)
	}
	r.send("echo", 2, fspb.Message_MEDIUM)
	r.send("echo", 3, fspb.Message_LOW)
	r.send("echo", 4, fspb.Message_HIGH)
	nothing(t, n.records, 300*time.Millisecond, "record 2 before the ack of record 1")
	n.finish()
	n = s.open()
	if got := numbers(n.first); !bytes.Equal(got, []byte{4, 1, 2, 3}) {
		t.Errorf("record 0 of the next session has %v, want high, medium in order, low", got)
	}
	r.send("echo", 5, fspb.Message_MEDIUM)
	if got := numbers(receive(t, n.records, "record 1")); !bytes.Equal(got, []byte{5}) {
		t.Errorf("record 1 has %v", got)
	}
	n.ack(1)
	r.send("echo", 6, fspb.Message_MEDIUM)
	if got := numbers(receive(t, n.records, "record 2")); !bytes.Equal(got, []byte{6}) {
		t.Errorf("record 2 has %v", got)
	}
}

func TestAckOfRecordThatWasNotSentEndsTheSession(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "echo")
	n := s.open()
	r.send("echo", 1, fspb.Message_MEDIUM)
	receive(t, n.records, "record 1")
	n.ack(2)
	if got := numbers(s.open().first); !bytes.Equal(got, []byte{1}) {
		t.Errorf("the next session begins with %v", got)
	}
}

// A server that promises ordered acknowledgements gets several records at once.
func TestOrderedAcksAllowAWindow(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.header.Set(wire.FeaturesHeader, wire.ServerFeatures)
	r := start(t, s, nil, "echo")
	n := s.open()
	for i := range byte(3) {
		r.send("echo", i, fspb.Message_MEDIUM)
		if got := numbers(receive(t, n.records, "a record")); !bytes.Equal(got, []byte{i}) {
			t.Errorf("record has %v, want %d", got, i)
		}
	}
	n.ack(1)
	n.ack(2)
	r.send("echo", 3, fspb.Message_MEDIUM)
	receive(t, n.records, "record 4")
	n.finish()
	if got := numbers(s.open().first); !bytes.Equal(got, []byte{2, 3}) {
		t.Errorf("the next session begins with %v, want those without an ack", got)
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

// A server that closes right after its answer is not tried again and again in a tight loop.
func TestShortSessionsBackOff(t *testing.T) { // G-25
	t.Parallel()
	s := newFakeServer(t)
	start(t, s, nil)
	for range 4 {
		s.open().finish()
	}
	attempts := s.requests("/streaming-message")
	if took := attempts[3].at.Sub(attempts[0].at); took < 50*time.Millisecond {
		t.Errorf("four sessions within %v", took)
	}
}

func TestOKWithoutAnAnswerIsAFailure(t *testing.T) { // G-07
	t.Parallel()
	s := newFakeServer(t)
	s.setRefuse(func(w http.ResponseWriter, r *http.Request) bool {
		return r.URL.Path == "/streaming-message"
	})
	r := start(t, s, nil)
	waitUntil(t, func() bool { return r.agent.Status().Link.LastError != "" })
	if got := r.agent.Status().Link; got.Server != "" || !got.LastContact.IsZero() {
		t.Errorf("status is %+v", got)
	}
}

func TestCompressionIsGivenUpWhenRefused(t *testing.T) { // G-05
	t.Parallel()
	for _, code := range []int{http.StatusUnsupportedMediaType, http.StatusBadRequest} {
		s := newFakeServer(t)
		s.setRefuse(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Content-Encoding") == "" {
				return false
			}
			http.Error(w, "no", code)
			return true
		})
		start(t, s, func(c *agent.Config) { c.Link.Deflate = true })
		if n := s.open(); n.attempt.header.Get("Content-Encoding") != "" {
			t.Errorf("after %d: still compressed", code)
		}
	}
}

func TestRetryAfterIsObeyed(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.setRefuse(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/streaming-message" || len(s.requests(r.URL.Path)) > 1 {
			return false
		}
		w.Header().Set("Retry-After", "2")
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return true
	})
	start(t, s, nil)
	s.open()
	attempts := s.requests("/streaming-message")
	if len(attempts) != 2 || attempts[1].at.Sub(attempts[0].at) < 2*time.Second {
		t.Errorf("%d attempts, the second after %v", len(attempts), attempts[1].at.Sub(attempts[0].at))
	}
}

func TestDeadServerIsSkipped(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	dead := newFakeServer(t)
	dead.http.Close()
	start(t, s, func(c *agent.Config) { c.Link.Servers = []string{dead.address(), s.address(), dead.address()} })
	s.open()
}

func TestTLSSessionIsResumed(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	start(t, s, nil)
	s.open().finish()
	if n := s.open(); !n.attempt.resumed {
		t.Error("a full handshake for the second session")
	}
}

func TestRevokedServerIsLeft(t *testing.T) { // G-52
	t.Parallel()
	s := newFakeServer(t)
	list, err := proto.Marshal(&fspb.RevokedCertificateList{Serials: [][]byte{s.serial.Bytes()}})
	if err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(t.TempDir(), "state")
	s.files["/files/system/RevokedCertificates"] = list
	r := start(t, s, func(c *agent.Config) { c.StateFile = state })
	s.open()
	waitUntil(t, func() bool { return bytes.Contains([]byte(r.agent.Status().Link.LastError), []byte("revoked")) })
	waitUntil(t, func() bool { return bytes.Contains(mustRead(t, state), s.serial.Bytes()) })
	if got := s.requests("/files/system/RevokedCertificates"); len(got) != 1 || len(got[0].header.Values("X-Fleetspeak-Labels")) != 3 {
		t.Errorf("requests are %v", got)
	}
}

func TestUntrustedServerIsRefused(t *testing.T) {
	t.Parallel()
	s, other := newFakeServer(t), newFakeServer(t)
	r := start(t, s, func(c *agent.Config) { c.Link.Roots = other.roots() })
	waitUntil(t, func() bool { return r.agent.Status().Link.LastError != "" })
	if got := s.requests("/streaming-message"); len(got) != 0 {
		t.Errorf("%d requests were made", len(got))
	}
}

func TestServerName(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, func(c *agent.Config) { c.Link.ServerName = "fleet.test" })
	s.open()
	waitUntil(t, func() bool { return r.agent.Status().Link.Server == s.address() })

	r = start(t, s, func(c *agent.Config) { c.Link.ServerName = "other.test" })
	waitUntil(t, func() bool { return r.agent.Status().Link.LastError != "" })
}

func TestLonelyAgentEnds(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.http.Close()
	r := start(t, s, func(c *agent.Config) {
		c.Link.LonelyLimit = 100 * time.Millisecond
		c.Link.MaxFailureDelay = time.Second
	})
	if err := r.exit(); !errors.Is(err, agent.ErrLonely) {
		t.Errorf("ended with %v", err)
	}
}

// What is in the outbox leaves at an orderly stop.
func TestFarewell(t *testing.T) { // G-11, G-57
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "echo")
	n := s.open()
	r.send("echo", 1, fspb.Message_MEDIUM)
	receive(t, n.records, "record 1") // under way, so that the rest waits
	for i := byte(2); i < 100; i++ {
		r.send("echo", i, fspb.Message_MEDIUM)
	}
	r.stop()
	closed(t, r.probe("echo").stopped, "the stop of the service")
	n.ack(1)
	if got := numbers(receive(t, n.records, "record 2")); len(got) != 98 {
		t.Errorf("%d messages in the last record", len(got))
	}
	n.ack(2)
	if err := r.exit(); err != nil {
		t.Errorf("ended with %v", err)
	}
	for range n.records { // up to the end of the body
	}
	if n.readErr != nil {
		t.Errorf("the session ended with %v", n.readErr)
	}
}

// With a full outbox, a sender blocked on it and a server that says nothing, the stop is still in time.
func TestStopHasADeadline(t *testing.T) { // G-56
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "echo")
	s.open()
	for i := range byte(100) {
		r.send("echo", i, fspb.Message_MEDIUM)
	}
	p := r.probe("echo")
	blocked := make(chan error, 1)
	go func() { // ends with the agent
		m := &fspb.Message{Destination: &fspb.Address{ServiceName: "sink"}}
		blocked <- p.spec.Host.Send(context.WithoutCancel(t.Context()), m, nil)
	}()
	nothing(t, blocked, 100*time.Millisecond, "the end of a send to a full outbox")
	began := time.Now()
	r.stop()
	if err := r.exit(); err != nil {
		t.Errorf("ended with %v", err)
	}
	if took := time.Since(began); took > 9*time.Second {
		t.Errorf("the stop took %v", took)
	}
	if err := receive(t, blocked, "the end of the send"); err == nil {
		t.Error("a message was taken that is lost")
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
