package server_test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// ioTimeout bounds every read and write of a test agent; reaching it is a failure.
const ioTimeout = 20 * time.Second

// testAgent is one identity that speaks the wire protocol by hand, apart from the code under test.
type testAgent struct {
	t           testing.TB
	address     string
	certificate tls.Certificate
	id          identity.ClientID
	labels      []string
}

func newTestAgent(t testing.TB, address string) *testAgent {
	t.Helper()
	certificate := selfSigned(t, time.Time{}) // agents of the original have no dates in theirs
	id, err := identity.ClientIDFromKey(certificate.PrivateKey.(*ecdsa.PrivateKey).Public())
	if err != nil {
		t.Fatal(err)
	}
	return &testAgent{t: t, address: address, certificate: certificate, id: id, labels: []string{"linux"}}
}

func selfSigned(t testing.TB, notAfter time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"test"}}, DNSNames: []string{"localhost"},
		NotAfter: notAfter,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *testAgent) tls(protocols ...string) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true,
		NextProtos:         protocols,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &a.certificate, nil
		},
	}
}

// wrap serializes a contact as an agent does.
func (a *testAgent) wrap(data *fspb.ContactData) []byte {
	a.t.Helper()
	data.ClientClock = timestamppb.Now()
	return a.marshal(&fspb.WrappedContactData{ContactData: a.marshal(data), ClientLabels: a.labels})
}

func (a *testAgent) marshal(m proto.Message) []byte {
	a.t.Helper()
	encoded, err := proto.Marshal(m)
	if err != nil {
		a.t.Fatal(err)
	}
	return encoded
}

// tryPoll is poll for a contact that may get no answer.
func (a *testAgent) tryPoll(body []byte) (int, error) {
	a.t.Helper()
	client := &http.Client{Timeout: ioTimeout, Transport: &http.Transport{TLSClientConfig: a.tls()}}
	defer client.CloseIdleConnections()
	response, err := client.Post("https://"+a.address+"/message", "", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// poll posts a body and returns the status and, for 200, the contact.
func (a *testAgent) poll(body []byte, header http.Header) (int, *fspb.ContactData) {
	a.t.Helper()
	client := &http.Client{Timeout: ioTimeout, Transport: &http.Transport{TLSClientConfig: a.tls()}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(a.t.Context(), http.MethodPost, "https://"+a.address+"/message", bytes.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := client.Do(request)
	if err != nil {
		a.t.Fatal(err)
	}
	defer response.Body.Close()
	reply, err := io.ReadAll(response.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	data := &fspb.ContactData{}
	if response.StatusCode == http.StatusOK {
		if err := proto.Unmarshal(reply, data); err != nil {
			a.t.Fatal(err)
		}
	}
	return response.StatusCode, data
}

// testStream is a streaming session of a testAgent.
type testStream struct {
	t        testing.TB
	raw      net.Conn // below; nil on HTTP/2
	body     io.WriteCloser
	reader   *bufio.Reader
	response *http.Response
}

// open starts a session and sends raw as the first bytes of its body.
func (a *testAgent) open(raw []byte) *testStream {
	a.t.Helper()
	return a.openEncoded("", raw)
}

// dial returns a new connection for HTTP/1.1.
func (a *testAgent) dial() net.Conn {
	a.t.Helper()
	conn, err := tls.Dial("tcp", a.address, a.tls("http/1.1"))
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(ioTimeout)); err != nil {
		a.t.Fatal(err)
	}
	return conn
}

// openEncoded is open with a Content-Encoding.
func (a *testAgent) openEncoded(encoding string, raw []byte) *testStream {
	a.t.Helper()
	conn := a.dial()
	header := "POST /streaming-message HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
	if encoding != "" {
		header += "Content-Encoding: " + encoding + "\r\n"
	}
	if _, err := io.WriteString(conn, header+"\r\n"); err != nil {
		a.t.Fatal(err)
	}
	s := &testStream{t: a.t, raw: conn, body: httputil.NewChunkedWriter(conn), reader: bufio.NewReader(conn)}
	s.send(raw)
	return s
}

// session opens a stream with a first contact and returns it with record 0 of the server.
func (a *testAgent) session(first *fspb.ContactData) (*testStream, *fspb.ContactData) {
	a.t.Helper()
	s := a.open(append([]byte{0x01, 0x10, 0xee, 0xf1}, framed(a.wrap(first))...))
	if status := s.status(); status != http.StatusOK {
		a.t.Fatalf("status %d", status)
	}
	return s, s.next()
}

func framed(body []byte) []byte {
	return append(binary.AppendUvarint(nil, uint64(len(body))), body...)
}

// send writes raw bytes into the body of the request.
func (s *testStream) send(raw []byte) {
	s.t.Helper()
	if len(raw) == 0 {
		return
	}
	if _, err := s.body.Write(raw); err != nil {
		s.t.Fatal(err)
	}
}

// status waits for the response header.
func (s *testStream) status() int {
	s.t.Helper()
	response, err := http.ReadResponse(s.reader, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.response = response
	s.reader = bufio.NewReader(response.Body)
	return response.StatusCode
}

// next reads one record.
func (s *testStream) next() *fspb.ContactData {
	s.t.Helper()
	data, err := s.tryNext()
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

func (s *testStream) tryNext() (*fspb.ContactData, error) {
	length, err := binary.ReadUvarint(s.reader)
	if err != nil {
		return nil, err
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(s.reader, body); err != nil {
		return nil, err
	}
	data := &fspb.ContactData{}
	return data, proto.Unmarshal(body, data)
}

// ended reads to the end of the stream. It fails when a record comes first, or when nothing comes.
func (s *testStream) ended() {
	s.t.Helper()
	data, err := s.tryNext()
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		s.t.Fatalf("got record %v, %v; want the end of the stream", data, err)
	}
}

// toService makes a message of a client's service to the server's service of the same name.
func toService(service, sourceID string) *fspb.Message {
	return &fspb.Message{
		Source:          &fspb.Address{ServiceName: service},
		SourceMessageId: []byte(sourceID),
		Destination:     &fspb.Address{ServiceName: service},
		MessageType:     "Test",
	}
}
