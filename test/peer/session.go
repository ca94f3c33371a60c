package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const (
	// continueTimeout is how long an agent waits for the server's 100 Continue before it sends its body anyway.
	continueTimeout = time.Second
	// openTimeout bounds the first exchange of a session.
	openTimeout = 30 * time.Second
	// writeTimeout bounds one record's way into the socket.
	writeTimeout = 30 * time.Second
)

// Refused is an HTTP answer other than 200.
type Refused struct {
	Status int
	Body   string
	// RetryAfter is that header, as it came.
	RetryAfter string
}

func (r *Refused) Error() string {
	return fmt.Sprintf("the server answered %d: %s", r.Status, strings.TrimSpace(r.Body))
}

// Session is one streaming connection, driven by hand. One goroutine may send while another receives.
type Session struct {
	conn    net.Conn
	reader  *bufio.Reader // what comes after TLS
	records *recordWriter
	body    *bufio.Reader // records of the server; nil before the response began
}

// StartStream connects and sends the request header of a streaming session, and waits for permission to send the body.
func (t Target) StartStream(ctx context.Context, key *Key, deflate bool) (*Session, error) {
	conn, err := t.Dial(ctx, key)
	if err != nil {
		return nil, err
	}
	s := &Session{conn: conn, reader: bufio.NewReader(conn)}
	s.records = newRecordWriter(chunkWriter{conn}, deflate)
	if err := s.request(t, key, deflate); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

// request writes the header as the reference agent does.
func (s *Session) request(t Target, key *Key, deflate bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "POST /streaming-message HTTP/1.1\r\nHost: %s\r\nUser-Agent: Go-http-client/1.1\r\n"+
		"Connection: close\r\nTransfer-Encoding: chunked\r\n", t.Address)
	if deflate {
		b.WriteString("Content-Encoding: deflate\r\n")
	}
	if t.CertificateHeader != "" {
		fmt.Fprintf(&b, "%s: %s\r\n", t.CertificateHeader, key.HeaderValue())
	}
	b.WriteString("Expect: 100-continue\r\nAccept-Encoding: gzip\r\n\r\n")
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := io.WriteString(s.conn, b.String()); err != nil {
		return err
	}
	return s.awaitContinue()
}

// awaitContinue takes 100 Continue when it comes soon. A final answer instead of it is a refusal.
func (s *Session) awaitContinue() error {
	if err := s.conn.SetReadDeadline(time.Now().Add(continueTimeout)); err != nil {
		return err
	}
	_, err := s.reader.Peek(1)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return s.conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return fmt.Errorf("waiting for 100 Continue: %w", err)
	}
	response, err := http.ReadResponse(s.reader, nil)
	if err != nil {
		return fmt.Errorf("waiting for 100 Continue: %w", err)
	}
	if response.StatusCode != http.StatusContinue {
		return refusedBy(response)
	}
	return s.conn.SetReadDeadline(time.Time{})
}

func refusedBy(response *http.Response) error {
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	return &Refused{Status: response.StatusCode, Body: string(text), RetryAfter: response.Header.Get("Retry-After")}
}

// Open starts a session and does the first exchange. The answer to record 0 has the nonce.
func (t Target) Open(ctx context.Context, key *Key, deflate bool, first *fspb.ContactData, labels []string) (*Session, *fspb.ContactData, error) {
	s, err := t.StartStream(ctx, key, deflate)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.conn.Close() })
	defer stop()
	if err = s.Send(first, labels); err == nil {
		var answer *fspb.ContactData
		if answer, err = s.receiveWithin(openTimeout); err == nil {
			return s, answer, nil
		}
	}
	s.Close()
	return nil, nil, err
}

// Send sends one record.
func (s *Session) Send(contact *fspb.ContactData, labels []string) error {
	record, err := Wrap(contact, labels)
	if err != nil {
		return err
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return s.records.writeRecord(record)
}

// SendRaw sends bytes inside chunking and compression: half records, hostile lengths.
func (s *Session) SendRaw(parts ...[]byte) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return s.records.writeRaw(parts...)
}

// Receive waits for the next record of the server. io.EOF means that the server ended the response in order.
func (s *Session) Receive() (*fspb.ContactData, error) {
	if s.body == nil {
		if err := s.readHeader(); err != nil {
			return nil, err
		}
	}
	return ReadContact(s.body)
}

func (s *Session) receiveWithin(d time.Duration) (*fspb.ContactData, error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		return nil, err
	}
	contact, err := s.Receive()
	if err != nil {
		return nil, err
	}
	return contact, s.conn.SetReadDeadline(time.Time{})
}

// ReceiveWithin is Receive with a deadline; after it passed the session is of no more use.
func (s *Session) ReceiveWithin(d time.Duration) (*fspb.ContactData, error) {
	return s.receiveWithin(d)
}

func (s *Session) readHeader() error {
	for {
		response, err := http.ReadResponse(s.reader, nil)
		if err != nil {
			return fmt.Errorf("response header: %w", err)
		}
		switch {
		case response.StatusCode == http.StatusContinue:
			continue // it came late
		case response.StatusCode != http.StatusOK:
			return refusedBy(response)
		}
		s.body = bufio.NewReader(response.Body)
		return nil
	}
}

// LocalAddress is this end of the connection, as the server sees it when nothing stands between.
func (s *Session) LocalAddress() string { return s.conn.LocalAddr().String() }

// Close drops the connection.
func (s *Session) Close() { _ = s.conn.Close() }
