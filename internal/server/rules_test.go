package server_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// A key that shares its ID with another one is refused on both paths, and the other client is not touched (G-44).
func TestKeyMismatch(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	real := store.ContactUpdate{ClientID: agent.id, Key: []byte("another key"), Address: "192.0.2.1:1"}
	if _, err := f.store.RecordContacts(t.Context(), []store.ContactUpdate{real}); err != nil {
		t.Fatal(err)
	}
	f.insert(t, agent.id, "S", 1)
	if status, _ := agent.poll(agent.wrap(manyMessages(1)), nil); status != http.StatusForbidden {
		t.Errorf("poll: status %d, want 403", status)
	}
	if status := agent.open(agent.first(manyMessages(1))).status(); status != http.StatusForbidden {
		t.Errorf("stream: status %d, want 403", status)
	}
	if mismatches := gauge(t, f.registry, "farspeak_key_mismatches_total"); mismatches != 2 {
		t.Errorf("%v mismatches counted, want 2", mismatches)
	}
	known, err := f.store.GetClients(t.Context(), []identity.ClientID{agent.id})
	if err != nil || !bytes.Equal(known[agent.id].Key, real.Key) || known[agent.id].LastContactAddress != real.Address || len(f.services.taken()) != 0 {
		t.Errorf("the stored client is %+v, %v", known[agent.id], err)
	}
}

// However many reasons there are to leave, done_sending comes once, and nothing is pushed after it (G-59).
func TestDoneSendingComesOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fixture, l *pipeListener) {
		agent := newTestAgent(t, "")
		stream := agent.openPipe(l, agent.first(&fspb.ContactData{}))
		stream.status()
		stream.next()
		if got := stream.next(); !got.DoneSending {
			t.Fatalf("got %v, want done_sending", got)
		}
		f.insert(t, agent.id, "S", 1)
		f.broadcast(t, store.UnlimitedBroadcast)
		f.server.Wake([]identity.ClientID{agent.id})
		f.server.BroadcastsChanged()
		stopped := make(chan struct{})
		go func() { f.stop(); close(stopped) }() // a drain after the end of the lifetime
		stream.send(framed(agent.wrap(&fspb.ContactData{})))
		if got := stream.next(); got.AckIndex != 1 || got.DoneSending || len(got.Messages) != 0 {
			t.Errorf("got %v, want an acknowledgement alone", got)
		}
		stream.ended()
		<-stopped
	}, withLifetime(10*time.Minute), func(c *server.Config) { c.DrainTimeout = 20 * time.Second })
}

// An agent that waits for 100 Continue gets it before the answer.
func TestExpectContinue(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	conn, err := tls.Dial("tcp", f.address, agent.tls("http/1.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(ioTimeout)); err != nil {
		t.Fatal(err)
	}
	header := "POST /streaming-message HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
	if _, err := io.WriteString(conn, header); err != nil {
		t.Fatal(err)
	}
	stream := &testStream{t: t, raw: conn, body: httputil.NewChunkedWriter(conn), reader: bufio.NewReader(conn)}
	if status := stream.status(); status != http.StatusContinue {
		t.Fatalf("status %d before the body, want 100", status)
	}
	stream.reader = bufio.NewReader(conn) // status took it over; nothing follows 100 Continue by itself
	stream.send(agent.first(&fspb.ContactData{}))
	if status := stream.status(); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	if got := stream.next(); got.SequencingNonce == 0 {
		t.Errorf("got %v, want a nonce", got)
	}
}

// A refusal arrives although the peer has sent a lot more already.
func TestRefusalArrivesBehindUnreadData(t *testing.T) {
	f := start(t)
	for range 10 {
		stream := newTestAgent(t, f.address).open(append([]byte{1, 2, 3, 4}, make([]byte, 64<<10)...))
		if status := stream.status(); status != http.StatusBadRequest {
			t.Errorf("status %d", status)
		}
	}
}

// A stream that ends before its first record is refused, with a proper answer.
func TestStreamWithoutRecord(t *testing.T) {
	f := start(t)
	for name, raw := range map[string][]byte{"nothing": nil, "half a magic": magic[:2], "magic alone": magic, "half a record": append(slices.Clone(magic), 5, 1)} {
		t.Run(name, func(t *testing.T) {
			stream := newTestAgent(t, f.address).open(raw)
			if err := stream.body.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(stream.raw, "\r\n"); err != nil {
				t.Fatal(err)
			}
			if status := stream.status(); status != http.StatusBadRequest {
				t.Errorf("status %d, want 400", status)
			}
			if body, err := io.ReadAll(stream.reader); err != nil || !strings.HasSuffix(string(body), "\n") {
				t.Errorf("body %q, %v", body, err)
			}
		})
	}
}

// Only the first record of a session has to claim the required label; what follows belongs to the same client.
func TestRequiredLabelIsAskedOnce(t *testing.T) {
	f := start(t, func(c *server.Config) { c.RequiredLabel = "linux" })
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	agent.labels = nil
	stream.send(framed(agent.wrap(&fspb.ContactData{})))
	if got := stream.next(); got.AckIndex != 1 {
		t.Errorf("got %v, want an acknowledgement", got)
	}
}

// A Die goes out once, on either path, and is complete with that: nobody is left to acknowledge it (G-13).
func TestDie(t *testing.T) {
	insert := func(t *testing.T, f *fixture, client identity.ClientID) identity.MessageID {
		id := identity.NewMessageID()
		m := toClient(client, "system", id)
		m.Source.ServiceName, m.MessageType = "operator", "Die"
		if _, err := f.store.InsertMessages(t.Context(), []*fspb.Message{m}); err != nil {
			t.Fatal(err)
		}
		return id
	}
	complete := func(f *fixture, id identity.MessageID) func() bool {
		return func() bool {
			status, err := f.store.MessageStatus(t.Context(), id)
			return err == nil && status.Result != nil && !status.Result.Failed
		}
	}
	one := map[string]uint64{"system": 1}
	f := start(t)
	agent := newTestAgent(t, f.address)
	agent.poll(agent.wrap(&fspb.ContactData{AllowedMessages: map[string]uint64{"none": 1}}), nil)

	polled := insert(t, f, agent.id)
	if _, data := agent.poll(agent.wrap(&fspb.ContactData{AllowedMessages: one}), nil); !slices.Equal(idsOf(t, data), []identity.MessageID{polled}) {
		t.Errorf("the poll got %v", data)
	}
	waitFor(t, "the Die of the poll to be complete", complete(f, polled))

	stream, _ := agent.session(&fspb.ContactData{AllowedMessages: one})
	pushed := insert(t, f, agent.id)
	f.server.Wake([]identity.ClientID{agent.id})
	if got := collect(stream, 1); got[0] != pushed {
		t.Errorf("the session got %v", got)
	}
	waitFor(t, "the Die of the session to be complete", complete(f, pushed))
	ids := f.insert(t, agent.id, "system", 1) // the token was not spent
	f.server.Wake([]identity.ClientID{agent.id})
	if got := collect(stream, 1); !slices.Equal(got, ids) {
		t.Errorf("got %v, want %v", got, ids)
	}
}

// Of two sessions the one that began later stays current, also when it was the faster one.
func TestSlowSessionDoesNotTakeOver(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	raw := agent.first(&fspb.ContactData{})
	slow := agent.open(raw[:5])
	waitFor(t, "the slow one to begin", func() bool { return server.Opening(f.server) == 1 })
	current, _ := agent.session(&fspb.ContactData{})
	slow.send(raw[5:])
	slow.status()
	slow.next()
	ids := f.insert(t, agent.id, "S", 1)
	f.server.Wake([]identity.ClientID{agent.id})
	if got := collect(current, 1); !slices.Equal(got, ids) {
		t.Errorf("got %v, want %v", got, ids)
	}
}

// Copies of a key each keep a session, up to a bound; past it the oldest makes room (G-44).
func TestSessionsOfOneClient(t *testing.T) {
	const most = 16
	f := start(t)
	agent := newTestAgent(t, f.address)
	var streams []*testStream
	for range most {
		stream, _ := agent.session(&fspb.ContactData{})
		streams = append(streams, stream)
	}
	takes := func(streams []*testStream, index uint64) {
		for i, stream := range streams {
			stream.send(framed(agent.wrap(&fspb.ContactData{})))
			if got := stream.next(); got.AckIndex != index {
				t.Errorf("session %d: got %v, want acknowledgement %d", i, got, index)
			}
		}
	}
	takes(streams, 1)
	agent.session(&fspb.ContactData{})
	streams[0].ended()
	takes(streams[1:], 2)
	if refused := refusals(t, f.registry, "sessions"); refused != 1 {
		t.Errorf("%v sessions counted, want 1", refused)
	}
}

// A machine with a whole IPv6 network counts as one address (G-32).
func TestRegistrationsOfOneNetwork(t *testing.T) {
	reserve := server.NewReserve(server.RegistrationLimits{PerSecond: 1000, PerSecondAndAddress: 0.1}, true)
	for address, want := range map[string][]bool{"[2001:db8::%d]:1": {true, false}, "192.0.2.%d:1": {true, true}} {
		for i, allowed := range want {
			settle, got := reserve(strings.ReplaceAll(address, "%d", string(rune('1'+i))))
			if settle(true); got != allowed {
				t.Errorf("registration %d from %s: %v", i, address, got)
			}
		}
	}
}
