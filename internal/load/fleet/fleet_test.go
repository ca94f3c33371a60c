package fleet_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/load/fleet"
	"github.com/farspeak/farspeak/internal/load/measure"
	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// patience bounds each wait of these tests.
const patience = 20 * time.Second

// commanded is a fleet behind its commands, as a process of a load test sees it.
type commanded struct {
	t       *testing.T
	ids     []identity.ClientID
	encoder *json.Encoder
	answers chan fleet.Answer
	last    fleet.Counts
}

const run = 77

// startFleet runs a fleet on the fake server until the test ends.
func startFleet(t *testing.T, s *fakeServer, clients int, adjust func(*fleet.Job)) *commanded {
	t.Helper()
	path, keys := keyring(t, clients)
	commands, toFleet := io.Pipe()
	fromFleet, answers := io.Pipe()
	served := make(chan error, 1)
	go func() {
		served <- fleet.Serve(context.Background(), commands, answers)
		answers.Close()
	}()
	c := &commanded{t: t, ids: keys.ClientIDs(), encoder: json.NewEncoder(toFleet), answers: make(chan fleet.Answer)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(c.answers)
		decoder := json.NewDecoder(bufio.NewReader(fromFleet))
		for {
			var a fleet.Answer
			if decoder.Decode(&a) != nil {
				return
			}
			c.answers <- a
		}
	}()
	t.Cleanup(func() {
		toFleet.Close()
		for range c.answers { // lets the fleet write to its end
		}
		<-read
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	job := fleet.Job{
		Servers: []string{s.address}, TrustedCerts: s.authority, KeyFile: path, Count: clients, Labels: []string{"load"}, Run: run,
		ReconnectMin: time.Millisecond, ReconnectMax: 10 * time.Millisecond,
	}
	if adjust != nil {
		adjust(&job)
	}
	c.do(fleet.Command{Start: &job})
	return c
}

// do gives a command and waits for its answer.
func (c *commanded) do(command fleet.Command) fleet.Answer {
	c.t.Helper()
	if err := c.encoder.Encode(command); err != nil {
		c.t.Fatal(err)
	}
	for a := range c.answers {
		if a.Report != nil {
			c.last = a.Report.Counts
		}
		if a.Error != "" {
			c.t.Fatal(a.Error)
		}
		if a.Done {
			return a
		}
	}
	c.t.Fatal("the fleet ended")
	return fleet.Answer{}
}

// until waits for counts.
func (c *commanded) until(what string, met func(fleet.Counts) bool) {
	c.t.Helper()
	late := time.After(patience)
	for !met(c.last) {
		select {
		case a, ok := <-c.answers:
			if !ok {
				c.t.Fatalf("the fleet ended before %s", what)
			}
			if a.Report != nil {
				c.last = a.Report.Counts
			}
		case <-late:
			c.t.Fatalf("no %s: counts are %v", what, c.last)
		}
	}
}

func (c *commanded) untilConnected(count int) {
	c.t.Helper()
	c.until("connections", func(n fleet.Counts) bool { return n[fleet.Connected] == int64(count) })
}

// downMessage is a load message to the client with an index.
func downMessage(index int, sequence uint64, sent time.Time) *fspb.Message {
	stamp := fleet.Stamp{Kind: fleet.Down, Index: index, Run: run, Sequence: sequence, Sent: sent.UnixNano()}
	data, _ := anypb.New(wrapperspb.Bytes(stamp.AppendPayload(nil, 64)))
	return &fspb.Message{
		MessageId: identity.NewMessageID().Bytes(), Source: &fspb.Address{ServiceName: "test"}, MessageType: fleet.MessageType, Data: data,
	}
}

func TestMessagesToClients(t *testing.T) {
	const clients = 5
	s := newFakeServer(t)
	c := startFleet(t, s, clients, nil)
	c.do(fleet.Command{Connect: true})
	c.untilConnected(clients)

	repeated := downMessage(0, 0, time.Now())
	for i, id := range c.ids {
		message := downMessage(i, uint64(i), time.Now())
		if i == 0 {
			message = repeated
		}
		s.push(id, message)
	}
	s.push(c.ids[0], repeated)
	s.push(c.ids[1], downMessage(4, 100, time.Now())) // for another client
	s.push(c.ids[1], &fspb.Message{MessageId: identity.NewMessageID().Bytes(), MessageType: "Other"})
	c.until("all messages with their acknowledgements", func(n fleet.Counts) bool {
		return n[fleet.Received] == clients+1 && n[fleet.AcksTaken] == clients+3
	})
	if c.last[fleet.Duplicates] != 1 || c.last[fleet.Misdelivered] != 1 || c.last[fleet.Foreign] != 1 {
		t.Errorf("counts are %v", c.last)
	}
	s.mu.Lock()
	if n := s.acked[string(repeated.MessageId)]; n != 2 {
		t.Errorf("a message that came twice was acknowledged %d times", n)
	}
	s.mu.Unlock()
	seen := measure.NewSeen()
	if err := seen.UnmarshalBinary(c.do(fleet.Command{Account: true}).Account.Seen); err != nil {
		t.Fatal(err)
	}
	if seen.Count() != clients+1 || seen.CountBelow(clients) != clients {
		t.Errorf("the account has %d numbers, %d of them below %d", seen.Count(), seen.CountBelow(clients), clients)
	}
}

// TestMessagesFromClients breaks each session once in the middle: everything arrives, in the numbers that the account says.
func TestMessagesFromClients(t *testing.T) {
	const clients, enough = 3, 300
	s := newFakeServer(t)
	broken := make(map[identity.ClientID]bool)
	records := 0
	s.before = func(n *fakeSession, contact *fspb.ContactData) bool { // under the server's lock
		records++
		if len(contact.Messages) > 10 {
			t.Errorf("a record has %d messages", len(contact.Messages))
		}
		if records > 20 && !broken[n.client] {
			broken[n.client] = true
			return false
		}
		return true
	}
	c := startFleet(t, s, clients, func(j *fleet.Job) { j.Window = 3 })
	c.do(fleet.Command{Connect: true})
	c.untilConnected(clients)
	c.do(fleet.Command{Send: &fleet.Sending{Service: "sink", Size: 100, Batch: 10, Closed: true}})
	c.until("messages", func(n fleet.Counts) bool { return n[fleet.Acked] > enough && n[fleet.Lost] == clients })
	c.untilConnected(clients)
	c.do(fleet.Command{Rest: true})
	c.until("an end", func(n fleet.Counts) bool { return n[fleet.Connected] == clients })

	s.mu.Lock()
	defer s.mu.Unlock()
	total := 0
	for i, n := range c.do(fleet.Command{Account: true}).Account.Acked {
		for number := range n {
			key := string(c.ids[i][:]) + sourceID(number)
			if s.messages[key] == 0 {
				t.Errorf("message %d of client %d was acknowledged and did not arrive", number, i)
			}
			total++
		}
	}
	if total <= enough {
		t.Errorf("%d messages were acknowledged", total)
	}
}

// sourceID is the ID that a client gives a message.
func sourceID(number uint64) string {
	var b [16]byte
	for i := range 8 {
		b[i] = byte(uint64(run) >> (8 * i))
		b[8+i] = byte(number >> (8 * i))
	}
	return string(b[:])
}

func TestRateIsKept(t *testing.T) {
	s := newFakeServer(t)
	c := startFleet(t, s, 4, nil)
	c.do(fleet.Command{Connect: true})
	c.untilConnected(4)
	began := time.Now()
	c.do(fleet.Command{Send: &fleet.Sending{Service: "sink", Rate: 500}})
	c.until("a second's messages", func(n fleet.Counts) bool { return n[fleet.Acked] >= 500 })
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("500 messages at 500 a second took %v", took)
	}
}

// TestGroups: messages that are due together go together, and in number as the rate says.
func TestGroups(t *testing.T) {
	s := newFakeServer(t)
	c := startFleet(t, s, 2, nil)
	c.do(fleet.Command{Connect: true})
	c.untilConnected(2)
	c.do(fleet.Command{Send: &fleet.Sending{Service: "sink", Rate: 1000, Group: 5, Batch: 10}})
	c.until("messages", func(n fleet.Counts) bool { return n[fleet.Acked] >= 100 })
	c.do(fleet.Command{Rest: true})
	c.until("the last acknowledgements", func(n fleet.Counts) bool { return n[fleet.Acked] == n[fleet.Sent] })
	if n := c.last; n[fleet.Sent] < 5*n[fleet.Records] || n[fleet.Sent]%5 != 0 {
		t.Errorf("%d messages in %d records, want groups of 5", n[fleet.Sent], n[fleet.Records])
	}
}

// TestFarewell: a client that is told to leave goes, and comes again at once with the nonce that it was given.
func TestFarewell(t *testing.T) {
	const clients = 3
	s := newFakeServer(t)
	s.features = wire.FeatureSharedTickets
	c := startFleet(t, s, clients, func(j *fleet.Job) { j.Resume = true })
	c.do(fleet.Command{Connect: true})
	c.untilConnected(clients)
	s.sayDone()
	c.until("new sessions", func(n fleet.Counts) bool { return n[fleet.Farewells] == clients && n[fleet.Connects] == 2*clients })
	if c.last[fleet.Lost] != 0 {
		t.Errorf("%d sessions count as lost", c.last[fleet.Lost])
	}
	if c.last[fleet.Resumed] != clients {
		t.Errorf("%d TLS sessions were resumed", c.last[fleet.Resumed])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.classic != clients {
		t.Errorf("%d sessions have keys by P-256 alone, want those that were resumed", s.classic)
	}
	again := 0
	for _, contact := range s.contacts {
		if contact.SequencingNonce == 42 {
			again++
		}
	}
	if again != clients {
		t.Errorf("%d first records have the nonce of the session before", again)
	}
}

func TestChurnAndSettle(t *testing.T) {
	const clients = 20
	s := newFakeServer(t)
	c := startFleet(t, s, clients, nil)
	c.do(fleet.Command{Churn: &fleet.Churn{Online: 200 * time.Millisecond, Away: 200 * time.Millisecond, Seed: 1}})
	c.until("coming and going", func(n fleet.Counts) bool { return n[fleet.Connects] > 2*clients })
	c.do(fleet.Command{Settle: true})
	c.untilConnected(clients)
	if c.last[fleet.Lost] != 0 {
		t.Errorf("%d departures count as lost sessions", c.last[fleet.Lost])
	}
	c.do(fleet.Command{Disconnect: true})
	c.untilConnected(0)
}

func TestRefusals(t *testing.T) {
	for name, job := range map[string]fleet.Job{
		"no server":   {},
		"no trust":    {Servers: []string{"127.0.0.1:1"}},
		"bad server":  {Servers: []string{"nowhere"}, Insecure: true},
		"bad source":  {Servers: []string{"127.0.0.1:1"}, Insecure: true, Sources: []string{"x"}},
		"no such key": {Servers: []string{"127.0.0.1:1"}, Insecure: true, First: 5, Count: 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, keys := keyring(t, 1)
			if f, err := fleet.New(job, keys); err == nil {
				f.Close()
				t.Error("it was taken")
			}
		})
	}
}

func TestKeysStay(t *testing.T) {
	path, before := keyring(t, 2)
	if err := fleet.EnsureKeys(path, 5); err != nil {
		t.Fatal(err)
	}
	after, err := fleet.LoadKeys(path, 0, 5)
	if err != nil {
		t.Fatal(err)
	}
	ids := after.ClientIDs()
	if len(ids) != 5 || ids[0] != before.ClientIDs()[0] || ids[1] != before.ClientIDs()[1] {
		t.Errorf("IDs were %v and are %v", before.ClientIDs(), ids)
	}
	if _, err := fleet.LoadKeys(path, 3, 3); err == nil {
		t.Error("keys that are not there were read")
	}
}
