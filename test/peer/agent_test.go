package peer_test

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	"github.com/farspeak/farspeak/test/peer"
)

// stage is one session of the test's own server.
type stage struct {
	t       *testing.T
	records *bufio.Reader
	w       http.ResponseWriter
}

// newTarget runs a TLS server that hands each session to play.
func newTarget(t *testing.T, play func(*stage)) peer.Target {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		play(&stage{t: t, records: bufio.NewReader(decoded(t, r)), w: w})
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return peer.Target{Address: strings.TrimPrefix(server.URL, "https://"), Roots: roots}
}

func decoded(t *testing.T, r *http.Request) io.Reader {
	if r.Header.Get("Content-Encoding") != "deflate" {
		return r.Body
	}
	z, err := zlib.NewReader(r.Body)
	if err != nil {
		t.Error(err)
		return bytes.NewReader(nil)
	}
	return z
}

// opening takes the magic and record 0, and answers it.
func (s *stage) opening(messages ...*fspb.Message) *fspb.ContactData {
	magic := make([]byte, 4)
	if _, err := io.ReadFull(s.records, magic); err != nil || !bytes.Equal(magic, peer.Magic()) {
		s.t.Errorf("the stream begins with %x, %v", magic, err)
	}
	contact := s.next()
	s.say(&fspb.ContactData{SequencingNonce: 7, Messages: messages})
	return contact
}

func (s *stage) next() *fspb.ContactData {
	size, err := binary.ReadUvarint(s.records)
	if err != nil {
		return nil
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(s.records, body); err != nil {
		return nil
	}
	wrapped, contact := &fspb.WrappedContactData{}, &fspb.ContactData{}
	if err := proto.Unmarshal(body, wrapped); err != nil {
		s.t.Error(err)
	}
	if err := proto.Unmarshal(wrapped.ContactData, contact); err != nil {
		s.t.Error(err)
	}
	return contact
}

func (s *stage) say(contact *fspb.ContactData) {
	b, err := proto.Marshal(contact)
	if err != nil {
		s.t.Error(err)
	}
	_, _ = s.w.Write(append(binary.AppendUvarint(nil, uint64(len(b))), b...)) // the agent may be gone
	_ = http.NewResponseController(s.w).Flush()
}

func message(agent *peer.Agent, id byte) *fspb.Message {
	return &fspb.Message{
		MessageId:   bytes.Repeat([]byte{id}, 32),
		Destination: &fspb.Address{ClientId: agent.ID(), ServiceName: "echo"},
	}
}

// eventually polls what an agent has come to.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within 10 s", what)
		case <-tick.C:
		}
	}
}

func start(t *testing.T, target peer.Target, deflate bool) *peer.Agent {
	return peer.Start(t, 1, func(int) peer.Config {
		return peer.Config{
			Targets: []peer.Target{target}, Services: []string{"echo"}, Labels: []string{"linux"}, Deflate: deflate,
			AckDelay: time.Millisecond, BatchDelay: time.Millisecond, Retry: time.Millisecond,
		}
	})[0]
}

// An agent sends what it was given, acknowledges what it gets, counts repeats, returns tokens, and comes back after
// done_sending.
func TestAgentExchanges(t *testing.T) {
	for _, deflate := range []bool{false, true} {
		agents := make(chan *peer.Agent, 1)
		types := make(chan string, 100)
		sessions := make(chan struct{}, 100)
		target := newTarget(t, func(s *stage) {
			agent := <-agents
			agents <- agent
			first := s.opening(message(agent, 1), message(agent, 1))
			sessions <- struct{}{}
			if first.AllowedMessages["echo"] != 100 || first.AllowedMessages["system"] != 100 {
				t.Errorf("record 0 grants %v", first.AllowedMessages)
			}
			note(types, first)
			for index := uint64(1); ; index++ {
				contact := s.next()
				if contact == nil {
					return
				}
				note(types, contact)
				s.say(&fspb.ContactData{AckIndex: index})
				if index == 1 {
					s.say(&fspb.ContactData{DoneSending: true})
				}
			}
		})
		agent := start(t, target, deflate)
		agent.Send(&fspb.Message{Source: &fspb.Address{ServiceName: "echo"}, Destination: &fspb.Address{ServiceName: "sink"}, MessageType: "Hello"})
		agents <- agent
		seen := make(map[string]bool)
		for !seen["ClientInfo"] || !seen["Hello"] || !seen["MessageAck"] {
			select {
			case kind := <-types:
				seen[kind] = true
			case <-time.After(10 * time.Second):
				t.Fatalf("deflate %v: the agent sent only %v; %+v", deflate, seen, agent.Stats())
			}
		}
		<-sessions
		<-sessions // it came back
		eventually(t, "acknowledgements", func() bool { return len(agent.AcknowledgedIDs()) == 1 })
		if stats := agent.Stats(); stats.Received != 1 || stats.Duplicates == 0 || stats.Farewells == 0 {
			t.Errorf("deflate %v: %+v", deflate, stats)
		}
		if v := agent.Violations(); len(v) > 0 {
			t.Errorf("deflate %v: violations %v", deflate, v)
		}
	}
}

func note(types chan<- string, contact *fspb.ContactData) {
	for _, m := range contact.Messages {
		select {
		case types <- m.MessageType:
		default:
		}
	}
}

// An agent holds what is not acknowledged, and notes a server that counts wrongly.
func TestAgentNotesOffences(t *testing.T) {
	for name, misbehave := range map[string]func(*stage){
		"skips an acknowledgement": func(s *stage) { s.say(&fspb.ContactData{AckIndex: 2}) },
		"done_sending not alone":   func(s *stage) { s.say(&fspb.ContactData{AckIndex: 1, DoneSending: true}) },
		"push with another nonce": func(s *stage) {
			s.say(&fspb.ContactData{SequencingNonce: 8, Messages: []*fspb.Message{{MessageId: make([]byte, 32)}}})
		},
	} {
		target := newTarget(t, func(s *stage) {
			s.opening()
			if s.next() != nil {
				misbehave(s)
			}
		})
		agent := start(t, target, false)
		eventually(t, "session", agent.Connected)
		agent.Send(&fspb.Message{Source: &fspb.Address{ServiceName: "echo"}, Destination: &fspb.Address{ServiceName: "sink"}})
		eventually(t, name, func() bool { return len(agent.Violations()) > 0 })
	}
}

func TestAgentReportsRefusals(t *testing.T) {
	target := newTarget(t, func(s *stage) { http.Error(s.w, "not now", http.StatusServiceUnavailable) })
	agent := start(t, target, false)
	eventually(t, "refusal", func() bool { return agent.Stats().Failures > 1 })
	if got := agent.Stats().LastError; !strings.Contains(got, "503") || !strings.Contains(got, "not now") {
		t.Errorf("the refusal is reported as %q", got)
	}
}
