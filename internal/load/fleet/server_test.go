package fleet_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// fakeServer is a server of the protocol that takes every message and keeps it.
type fakeServer struct {
	t         *testing.T
	address   string
	authority string

	mu       sync.Mutex
	sessions map[identity.ClientID]*fakeSession // the newest of each client
	opened   int
	resumed  int
	classic  int                 // of them without ML-KEM
	features string              // of the answers
	contacts []*fspb.ContactData // of all records
	messages map[string]int      // from clients, by their source message ID and client
	acked    map[string]int      // message IDs that clients acknowledged
	// before is asked before a record is acknowledged; false ends the session.
	before func(*fakeSession, *fspb.ContactData) bool
}

// fakeSession is one session of it.
type fakeSession struct {
	client identity.ClientID
	conn   *tls.Conn
	mu     sync.Mutex // held while a record is written
}

func newFakeServer(t *testing.T) *fakeServer {
	t.Helper()
	pair, authority := certificate(t)
	s := &fakeServer{
		t: t, authority: authority,
		sessions: make(map[identity.ClientID]*fakeSession), messages: make(map[string]int), acked: make(map[string]int),
	}
	s.address = listen(t, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}, s.serve)
	return s
}

func (s *fakeServer) serve(conn net.Conn) {
	secured := conn.(*tls.Conn)
	lines := bufio.NewReader(conn)
	request, err := http.ReadRequest(lines)
	if err != nil {
		return
	}
	state := secured.ConnectionState()
	if request.URL.Path != "/streaming-message" || request.Header.Get("Expect") != "100-continue" || len(state.PeerCertificates) != 1 {
		s.t.Errorf("bad request: %v", request)
		return
	}
	id, err := identity.ClientIDFromKey(state.PeerCertificates[0].PublicKey)
	if err != nil {
		s.t.Error(err)
		return
	}
	io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
	n := &fakeSession{client: id, conn: secured}
	records := wire.NewRecordReader(httputil.NewChunkedReader(lines), wire.FromClient(nil))
	if records.ReadMagic() != nil {
		return
	}
	s.exchange(n, records, state)
}

func (s *fakeServer) exchange(n *fakeSession, records *wire.RecordReader, state tls.ConnectionState) {
	for index := uint64(0); ; index++ {
		record, err := records.Next()
		if err != nil {
			return
		}
		contact := s.decode(record.Bytes())
		record.Release()
		if !s.take(n, contact, index) {
			return
		}
		if index > 0 {
			n.write(wire.AppendAck(nil, index))
			continue
		}
		s.mu.Lock()
		s.sessions[n.client] = n
		s.opened++
		if state.DidResume {
			s.resumed++
		}
		if state.CurveID == tls.CurveP256 {
			s.classic++
		}
		features := s.features
		s.mu.Unlock()
		fmt.Fprintf(n.conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%s: %s\r\n\r\n", wire.FeaturesHeader, features)
		n.write(wire.AppendRecord(nil, wire.AppendContactData(nil, 42, nil)))
	}
}

func (s *fakeServer) decode(body []byte) *fspb.ContactData {
	var wrapped fspb.WrappedContactData
	var contact fspb.ContactData
	if err := proto.Unmarshal(body, &wrapped); err != nil {
		s.t.Error(err)
	}
	if err := proto.Unmarshal(wrapped.ContactData, &contact); err != nil {
		s.t.Error(err)
	}
	return &contact
}

// take keeps what a record says, unless before ends the session.
func (s *fakeServer) take(n *fakeSession, contact *fspb.ContactData, index uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.contacts = append(s.contacts, contact)
	if index > 0 && s.before != nil && !s.before(n, contact) {
		return false
	}
	for _, m := range contact.Messages {
		if m.MessageType == "MessageAck" {
			var acks fspb.MessageAckData
			if err := m.Data.UnmarshalTo(&acks); err != nil {
				s.t.Error(err)
			}
			for _, id := range acks.MessageIds {
				s.acked[string(id)]++
			}
			continue
		}
		s.messages[string(n.client[:])+string(m.SourceMessageId)]++
	}
	return true
}

// push sends messages to a client; false says that it has no session.
func (s *fakeServer) push(client identity.ClientID, messages ...*fspb.Message) bool {
	s.mu.Lock()
	n := s.sessions[client]
	s.mu.Unlock()
	if n == nil {
		return false
	}
	var encoded [][]byte
	for _, m := range messages {
		m.Destination = &fspb.Address{ClientId: client.Bytes(), ServiceName: "load"}
		b, err := proto.Marshal(m)
		if err != nil {
			s.t.Error(err)
		}
		encoded = append(encoded, b)
	}
	n.write(wire.AppendRecord(nil, wire.AppendContactData(nil, 42, encoded)))
	return true
}

// sayDone asks all clients to leave.
func (s *fakeServer) sayDone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.sessions {
		n.write(wire.AppendDoneSending(nil))
	}
}

func (n *fakeSession) write(record []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fmt.Fprintf(n.conn, "%x\r\n%s\r\n", len(record), record) // a client that left is no error
}
