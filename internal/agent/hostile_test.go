package agent_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/agent"
	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// A record that would take a hundred times its bytes costs the server its session, and the agent nothing.
func TestAmplifyingRecordEndsTheSession(t *testing.T) { // G-03
	t.Parallel()
	s := newFakeServer(t)
	start(t, s, nil, "echo")
	n := s.open()
	empty := bytes.Repeat([]byte{0x12, 0}, wire.MaxServerElements+1) // messages
	n.sendRaw(append(binary.AppendUvarint(nil, uint64(len(empty))), empty...))
	for range n.records { // up to the end of the body
	}
	s.open()
}

// What the agent says about a message does not grow with the names that a server gives it.
func TestLongNamesAreCut(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	start(t, s, nil)
	n := s.open()
	records := n.ackAll()
	long := strings.Repeat("\x01", 1<<20)
	for _, m := range []*fspb.Message{to(n, long, "x", nil), to(n, "system", long, nil)} {
		n.push(m)
		failure := unpack(t, await(t, records, "MessageError"), &fspb.MessageErrorData{})
		if !bytes.Equal(failure.MessageId, m.MessageId) || len(failure.Error) > 1000 {
			t.Errorf("message %x failed with %d bytes", failure.MessageId, len(failure.Error))
		}
	}
}

// Whatever a server says in place of a record costs it its session. What it did not acknowledge comes again, services go on,
// and the status says what was wrong.
func TestGarbageFromTheServer(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		garbage []byte
		ends    bool // the server ends the session after it
	}{
		"endless length": {bytes.Repeat([]byte{0xff}, 20), false},
		"immense record": {binary.AppendUvarint(nil, math.MaxInt64), false},
		"no protobuf":    {append(binary.AppendUvarint(nil, 9), "HTTP/1.1 "...), false},
		"half a record":  {append(binary.AppendUvarint(nil, 100), 0x12), true},
	} {
		for _, answered := range []bool{false, true} {
			s := newFakeServer(t)
			r := start(t, s, nil, "echo")
			n := s.next()
			if answered {
				n.answer()
			}
			r.send("echo", 1, fspb.Message_HIGH)
			n.sendRaw(test.garbage)
			if test.ends {
				n.finish()
			}
			for range n.records { // up to the end of the body
			}
			n = s.next()
			n.answer(to(n, "echo", "after", nil))
			sent := find(n.first, "numbered")
			for len(sent) == 0 {
				sent = find(receive(t, n.records, "what the service sent"), "numbered")
			}
			receive(t, r.probe("echo").messages, "a message after "+name)
			if r.agent.Status().Link.LastError == "" {
				t.Errorf("%s (after the answer: %t) is not told", name, answered)
			}
		}
	}
}

func TestGarbageInAPoll(t *testing.T) {
	t.Parallel()
	for name, garbage := range map[string]string{"no protobuf": "HTTP/1.1 ", "half a reply": "\x12\x40a", "too many messages": strings.Repeat("\x12\x00", wire.MaxServerElements+1)} {
		s := newFakeServer(t)
		s.setRefuse(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/message" || len(s.requests(r.URL.Path)) > 1 {
				return false
			}
			_, _ = w.Write([]byte(garbage)) // the agent may have gone
			return true
		})
		r := start(t, s, func(c *agent.Config) { c.Link.Streaming = false }, "echo")
		p := receive(t, s.polls, "another poll after "+name)
		if len(find(p.record, "ClientInfo")) != 1 {
			t.Errorf("%s: the next poll lacks what the first one had", name)
		}
		p.answer <- &fspb.ContactData{Messages: []*fspb.Message{toClient(t, p.id, "echo", "after", nil)}}
		receive(t, r.probe("echo").messages, "a message after "+name)
		if !strings.Contains(r.agent.Status().Link.LastError, "reply of the server") {
			t.Errorf("%s: the last error is %q", name, r.agent.Status().Link.LastError)
		}
	}
}

// earlyCertificate is the server's own certificate in all but its dates: to a clock that went back it is not valid yet.
func earlyCertificate(t *testing.T, s *fakeServer) *tls.Certificate {
	t.Helper()
	own := s.http.TLS.Certificates[0]
	template := *own.Leaf
	template.NotBefore, template.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
	key := own.PrivateKey.(*ecdsa.PrivateKey)
	der, err := x509.CreateCertificate(rand.Reader, &template, own.Leaf, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// A clock that is wrong keeps the agent from believing a server, and no longer than it is wrong. A session that is open
// does not notice.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.present(earlyCertificate(t, s))
	r := start(t, s, nil, "echo")
	waitUntil(t, func() bool { return strings.Contains(r.agent.Status().Link.LastError, "not yet valid") })
	s.present(nil)
	n := s.open()
	s.present(earlyCertificate(t, s))
	n.push(to(n, "echo", "now", nil))
	receive(t, r.probe("echo").messages, "a message")
}

// A service that sends without end leaves room for others of the same priority.
func TestFloodLeavesRoomForOthers(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "flood", "calm")
	n := s.open()
	flooded := make(chan struct{})
	stop := make(chan struct{})
	go func() { // waited for at the end
		defer close(flooded)
		for {
			select {
			case <-stop:
				return
			default:
				m := &fspb.Message{Destination: &fspb.Address{ServiceName: "sink"}, MessageType: "flood"}
				if r.probe("flood").spec.Host.Send(t.Context(), m, nil) != nil {
					return
				}
			}
		}
	}()
	records := n.ackAll()
	const calm = 20
	go func() { // ends with the test's context at the latest
		for i := range byte(calm) {
			m := &fspb.Message{Destination: &fspb.Address{ServiceName: "sink"}, MessageType: "numbered", SourceMessageId: []byte{i}}
			if r.probe("calm").spec.Host.Send(t.Context(), m, nil) != nil {
				return
			}
		}
	}()
	for want := byte(0); want < calm; {
		for _, m := range find(receive(t, records, "what the calm service sends"), "numbered") {
			if m.SourceMessageId[0] != want {
				t.Fatalf("number %d comes, want %d", m.SourceMessageId[0], want)
			}
			want++
		}
	}
	close(stop)
	<-flooded
}
