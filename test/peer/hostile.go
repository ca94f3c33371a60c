package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
)

// offenceTimeout is how long a server may take to answer an offence.
const offenceTimeout = 15 * time.Second

// Offence is something that no agent does. Commit does it on a connection of its own and returns an error when the
// server did not react as it should.
type Offence struct {
	Name   string
	Commit func(context.Context, Target, *Key) error
}

// Offences lists what a hostile peer sends. After each the server has to serve others as before.
func Offences() []Offence {
	return []Offence{
		{"wrong magic", atStart([]byte("GARBAGE!"))},
		{"zero-length record 0", atStart(Magic(), []byte{0})}, // G-03
		{"record of 20 MiB and a byte", atStart(Magic(), AppendVarint(nil, 20<<20+1))},
		{"length of 64 bits", atStart(Magic(), AppendVarint(nil, math.MaxUint64))},
		{"length of 11 bytes", atStart(Magic(), []byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01})},
		{"record 0 is no message", atStart(Magic(), []byte{3, 0xff, 0xff, 0xff})},
		{"101 messages in record 0", atStart(Magic(), prefixed(wrapped(messages(maxRecordMessages+1))))},
		{"zero-length record 1", later([]byte{0}, ends)}, // G-03
		{"half a record", later(append(AppendVarint(nil, 100), "half"...), closedByPeer)},
		{"record 1 is no message", later([]byte{3, 0xff, 0xff, 0xff}, ends)},
		{"101 messages in record 1", later(prefixed(wrapped(messages(maxRecordMessages+1))), ends)},
		{"tokens that wrap", laterContact(&fspb.ContactData{AllowedMessages: map[string]uint64{systemService: math.MaxUint64 - 5}})}, // G-04
		{"resource usage without usage", laterContact(contactOf(emptyUsage()))},                                                      // G-01
		{"acknowledgement of IDs of all lengths", laterContact(contactOf(oddAck()))},                                                 // G-19
		{"result of its own", laterContact(contactOf(withResult()))},                                                                 // G-46, G-58
		{"signature without certificate", later(prefixed(unsigned()), ends|continues)},                                               // G-01
		{"no certificate", presenting(-1)},
		{"two certificates", presenting(2)},
		{"GET", request("GET /streaming-message HTTP/1.1\r\nHost: h\r\n\r\n", http.StatusBadRequest)},
		{"unknown encoding", request(post("Content-Encoding: br\r\n", "x"), http.StatusUnsupportedMediaType)},
		{"deflate that is none", request(post("Content-Encoding: deflate\r\n", "no zlib header"), http.StatusBadRequest)},
		{"unknown path", request("POST /nothing HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", http.StatusNotFound)},
	}
}

// reaction is what may follow an offence on an open session.
type reaction int

const (
	ends         reaction = 1 << iota // the server ends the session
	continues                         // the server acknowledges the record
	closedByPeer                      // the offender leaves
)

// atStart sends parts in place of magic and record 0; the server has to end the session.
func atStart(parts ...[]byte) func(context.Context, Target, *Key) error {
	return func(ctx context.Context, t Target, key *Key) error {
		s, err := t.StartStream(ctx, key, false)
		if err != nil {
			return err
		}
		defer s.Close()
		if err := s.SendRaw(parts...); err != nil {
			return nil // the server had enough before the end
		}
		return s.expect(ends)
	}
}

// later sends raw bytes on a session that began well.
func later(raw []byte, allowed reaction) func(context.Context, Target, *Key) error {
	return func(ctx context.Context, t Target, key *Key) error {
		s, _, err := t.Open(ctx, key, false, &fspb.ContactData{AllowedMessages: map[string]uint64{systemService: 1}}, nil)
		if err != nil {
			return err
		}
		defer s.Close()
		if err := s.SendRaw(raw); err != nil {
			return err
		}
		if allowed == closedByPeer {
			return nil
		}
		return s.expect(allowed)
	}
}

// laterContact sends one more record, which the server has to acknowledge whatever it thinks of the content.
func laterContact(contact *fspb.ContactData) func(context.Context, Target, *Key) error {
	return later(prefixed(wrapped(contact)), continues)
}

// expect waits for the server's reaction.
func (s *Session) expect(allowed reaction) error {
	contact, err := s.receiveWithin(offenceTimeout)
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil && contact.AckIndex == 1 && allowed&continues != 0:
		return nil
	case err == nil:
		return fmt.Errorf("the server answers %v", contact)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("the server does not react: %w", err)
	case allowed&ends == 0:
		return fmt.Errorf("the server ended the session: %w", err)
	}
	return nil
}

// presenting connects with so many certificates in the chain. Refusing the handshake is as good as refusing the request.
func presenting(copies int) func(context.Context, Target, *Key) error {
	return func(ctx context.Context, t Target, key *Key) error {
		t.Copies = copies
		s, _, err := t.Open(ctx, key, false, &fspb.ContactData{ClientClock: timestamppb.Now()}, nil)
		if err == nil {
			s.Close()
			return fmt.Errorf("a client with %d certificates got in", max(0, copies))
		}
		return nil
	}
}

// request sends a whole HTTP request and expects an answer with that status.
func request(text string, status int) func(context.Context, Target, *Key) error {
	return func(ctx context.Context, t Target, key *Key) error {
		conn, err := t.Dial(ctx, key)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(offenceTimeout)); err != nil {
			return err
		}
		if _, err := io.WriteString(conn, text); err != nil {
			return err
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		_ = response.Body.Close()
		if response.StatusCode != status {
			return fmt.Errorf("the server answers %s, not %d", response.Status, status)
		}
		return nil
	}
}

func post(header, body string) string {
	return fmt.Sprintf("POST /streaming-message HTTP/1.1\r\nHost: h\r\n%sContent-Length: %d\r\n\r\n%s", header, len(body), body)
}

func prefixed(record []byte) []byte { return append(AppendVarint(nil, uint64(len(record))), record...) }

func wrapped(contact *fspb.ContactData) []byte {
	record, err := Wrap(contact, nil)
	if err != nil {
		panic(err) // only for messages that no program can build
	}
	return record
}

func contactOf(messages ...*fspb.Message) *fspb.ContactData {
	return &fspb.ContactData{Messages: messages}
}

func messages(n int) *fspb.ContactData {
	contact := &fspb.ContactData{}
	for range n {
		contact.Messages = append(contact.Messages, systemMessage("MessageAck", &fspb.MessageAckData{}))
	}
	return contact
}

func emptyUsage() *fspb.Message {
	now := timestamppb.Now()
	return systemMessage("ResourceUsage", &monitoringpb.ResourceUsageData{
		Scope: systemService, ProcessStartTime: now, DataTimestamp: now,
	})
}

func oddAck() *fspb.Message {
	return systemMessage("MessageAck", &fspb.MessageAckData{MessageIds: [][]byte{nil, make([]byte, 32)}})
}

// withResult claims for itself what only a server may say.
func withResult() *fspb.Message {
	m := systemMessage("MessageAck", &fspb.MessageAckData{})
	m.Result = &fspb.MessageResult{}
	m.MessageId = []byte("not a message ID")
	return m
}

// unsigned is a record with a signature that names an algorithm and has no certificate.
func unsigned() []byte {
	record, err := proto.Marshal(&fspb.WrappedContactData{
		Signatures: []*fspb.Signature{{Algorithm: 10, Signature: []byte("signature")}},
	})
	if err != nil {
		panic(err) // only for messages that no program can build
	}
	return record
}
