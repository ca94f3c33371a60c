package agent_test

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// patience bounds every wait of these tests for something that has to happen.
const patience = 20 * time.Second

// fakeServer speaks the server's side of the protocol, written from its description alone. The test decides what it says.
type fakeServer struct {
	t      *testing.T
	http   *httptest.Server
	serial *big.Int

	sessions chan *fakeSession // each session that was opened, after its record 0 was read
	polls    chan *fakePoll

	mu       sync.Mutex
	refuse   func(w http.ResponseWriter, r *http.Request) bool // answers instead of the server
	header   http.Header                                       // of answers
	attempts []attempt
	files    map[string][]byte
	other    *tls.Certificate // presented in place of its own
}

// attempt is a request as it came.
type attempt struct {
	at      time.Time
	path    string
	header  http.Header
	length  int64
	proto   string
	resumed bool
	curve   tls.CurveID
	client  *x509.Certificate
}

func newFakeServer(t *testing.T) *fakeServer {
	t.Helper()
	s := &fakeServer{
		t: t, sessions: make(chan *fakeSession, 100), polls: make(chan *fakePoll, 100),
		header: http.Header{}, files: map[string][]byte{},
	}
	s.http = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	certificate, serial := newServerCertificate(t)
	s.serial = serial
	s.http.TLS = &tls.Config{
		Certificates:       []tls.Certificate{certificate},
		ClientAuth:         tls.RequestClientCert,
		NextProtos:         []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.config(), nil },
	}
	s.http.EnableHTTP2 = true
	s.http.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.http.StartTLS()
	t.Cleanup(func() {
		s.http.CloseClientConnections()
		s.http.Close()
	})
	return s
}

func (s *fakeServer) address() string { return s.http.Listener.Addr().String() }

func (s *fakeServer) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.http.Certificate())
	return pool
}

// setRefuse has requests answered by refuse, as long as it returns true.
func (s *fakeServer) setRefuse(refuse func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = refuse
}

func (s *fakeServer) requests(path string) []attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []attempt
	for _, a := range s.attempts {
		if a.path == path {
			out = append(out, a)
		}
	}
	return out
}

func (s *fakeServer) serve(w http.ResponseWriter, r *http.Request) {
	a := attempt{at: time.Now(), path: r.URL.Path, header: r.Header.Clone(), length: r.ContentLength, proto: r.Proto,
		resumed: r.TLS.DidResume, curve: r.TLS.CurveID}
	if len(r.TLS.PeerCertificates) == 1 {
		a.client = r.TLS.PeerCertificates[0]
	}
	s.mu.Lock()
	s.attempts = append(s.attempts, a)
	refuse := s.refuse
	s.mu.Unlock()
	if a.client == nil {
		http.Error(w, "one client certificate", http.StatusBadRequest)
		return
	}
	if refuse != nil && refuse(w, r) {
		return
	}
	switch {
	case r.URL.Path == "/streaming-message":
		s.stream(w, r, a)
	case r.URL.Path == "/message":
		s.poll(w, r, a)
	case strings.HasPrefix(r.URL.Path, "/files/"):
		s.file(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (s *fakeServer) file(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	data, ok := s.files[r.URL.Path]
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, "", time.Unix(1700000000, 0), bytes.NewReader(data))
}

func body(r *http.Request) (io.Reader, error) {
	switch r.Header.Get("Content-Encoding") {
	case "":
		return r.Body, nil
	case "deflate":
		return zlib.NewReader(r.Body)
	}
	return nil, errors.New("unknown encoding")
}

// record is one record of the agent.
type record struct {
	wrapped *fspb.WrappedContactData
	data    *fspb.ContactData
}

func decodeRecord(b []byte) (record, error) {
	r := record{wrapped: &fspb.WrappedContactData{}, data: &fspb.ContactData{}}
	if err := proto.Unmarshal(b, r.wrapped); err != nil {
		return r, err
	}
	return r, proto.Unmarshal(r.wrapped.ContactData, r.data)
}

// fakeSession is one stream. Its records arrive on the channel, which is closed at the end of the request body.
type fakeSession struct {
	t       *testing.T
	attempt attempt
	id      identity.ClientID
	first   record
	records chan record
	readErr error // why records was closed; nil for an orderly end

	writing sync.Mutex
	w       http.ResponseWriter
	end     chan struct{} // closed by finish
	once    sync.Once
}

func (s *fakeServer) stream(w http.ResponseWriter, r *http.Request, a attempt) {
	control := http.NewResponseController(w)
	if r.ProtoMajor == 1 {
		if err := control.EnableFullDuplex(); err != nil {
			s.t.Errorf("full duplex: %v", err)
		}
	}
	from, err := body(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	in := bufio.NewReader(from)
	magic := make([]byte, 4)
	if _, err := io.ReadFull(in, magic); err != nil || !bytes.Equal(magic, []byte{0x01, 0x10, 0xee, 0xf1}) {
		s.t.Errorf("magic is %x, %v", magic, err)
		return
	}
	first, err := readRecord(in)
	if err != nil {
		s.t.Errorf("record 0: %v", err)
		return
	}
	id, err := identity.ClientIDFromKey(a.client.PublicKey)
	if err != nil {
		s.t.Errorf("client ID: %v", err)
	}
	n := &fakeSession{t: s.t, attempt: a, id: id, first: first, records: make(chan record, 1000), w: w, end: make(chan struct{})}
	s.mu.Lock()
	for name, values := range s.header {
		w.Header()[name] = values
	}
	s.mu.Unlock()
	defer n.finish() // nobody writes to a response that is over
	s.sessions <- n
	reading := make(chan struct{})
	go func() { // ends with the body, at the latest when the handler returns
		defer close(reading)
		n.read(in)
	}()
	select {
	case <-n.end:
	case <-reading:
	case <-s.t.Context().Done():
	}
}

func (n *fakeSession) read(in *bufio.Reader) {
	defer close(n.records)
	for {
		r, err := readRecord(in)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				n.readErr = err
			}
			return
		}
		n.records <- r
	}
}

func readRecord(in *bufio.Reader) (record, error) {
	length, err := binary.ReadUvarint(in)
	if err != nil {
		return record{}, err
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(in, b); err != nil {
		return record{}, err
	}
	return decodeRecord(b)
}

// send writes one record to the agent.
func (n *fakeSession) send(data *fspb.ContactData) {
	n.t.Helper()
	b, err := proto.Marshal(data)
	if err != nil {
		n.t.Fatal(err)
	}
	n.sendRaw(append(binary.AppendUvarint(nil, uint64(len(b))), b...))
}

func (n *fakeSession) sendRaw(b []byte) {
	n.writing.Lock()
	defer n.writing.Unlock()
	select {
	case <-n.end:
		return
	default:
	}
	_, _ = n.w.Write(b) // the agent may have gone
	_ = http.NewResponseController(n.w).Flush()
}

// answer sends record 0.
func (n *fakeSession) answer(messages ...*fspb.Message) {
	n.t.Helper()
	n.send(&fspb.ContactData{SequencingNonce: 7, Messages: messages})
}

func (n *fakeSession) push(messages ...*fspb.Message) {
	n.t.Helper()
	n.send(&fspb.ContactData{SequencingNonce: 7, Messages: messages})
}

func (n *fakeSession) ack(index uint64) {
	n.t.Helper()
	n.send(&fspb.ContactData{AckIndex: index})
}

// ackAll acknowledges in order whatever comes, and passes the records on.
func (n *fakeSession) ackAll() <-chan record {
	out := make(chan record, 1000)
	go func() { // ends with the session
		defer close(out)
		index := uint64(0)
		for r := range n.records {
			index++
			n.ack(index)
			out <- r
		}
	}()
	return out
}

// finish ends the response.
func (n *fakeSession) finish() {
	n.writing.Lock()
	defer n.writing.Unlock()
	n.once.Do(func() { close(n.end) })
}

func (s *fakeServer) next() *fakeSession {
	s.t.Helper()
	return receive(s.t, s.sessions, "a session")
}

// open waits for a session and answers it.
func (s *fakeServer) open(messages ...*fspb.Message) *fakeSession {
	s.t.Helper()
	n := s.next()
	n.answer(messages...)
	return n
}

// fakePoll is one poll, which waits for its answer.
type fakePoll struct {
	attempt attempt
	id      identity.ClientID
	record  record
	answer  chan<- *fspb.ContactData
}

func (s *fakeServer) poll(w http.ResponseWriter, r *http.Request, a attempt) {
	from, err := body(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b, err := io.ReadAll(from)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	rec, err := decodeRecord(b)
	if err != nil {
		s.t.Errorf("poll: %v", err)
	}
	id, err := identity.ClientIDFromKey(a.client.PublicKey)
	if err != nil {
		s.t.Errorf("client ID: %v", err)
	}
	answer := make(chan *fspb.ContactData, 1)
	s.polls <- &fakePoll{attempt: a, id: id, record: rec, answer: answer}
	select {
	case data := <-answer:
		out, err := proto.Marshal(data)
		if err != nil {
			s.t.Errorf("answer: %v", err)
		}
		s.mu.Lock()
		maps.Copy(w.Header(), s.header)
		s.mu.Unlock()
		_, _ = w.Write(out)
	case <-r.Context().Done():
	case <-s.t.Context().Done():
	}
}

func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v, ok := <-from:
		if !ok {
			t.Fatalf("%s does not come: the channel is closed", what)
		}
		return v
	case <-time.After(patience):
		t.Fatalf("%s does not come", what)
	}
	panic("not reached")
}

// closed waits until a channel is closed.
func closed(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("%s does not come", what)
	}
}

// nothing checks that nothing comes for a while.
func nothing[T any](t *testing.T, from <-chan T, d time.Duration, what string) {
	t.Helper()
	select {
	case v, ok := <-from:
		if ok {
			t.Fatalf("%s comes: %v", what, v)
		}
		t.Fatalf("%s: the channel is closed", what)
	case <-time.After(d):
	}
}
