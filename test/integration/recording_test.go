package integration_test

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	"github.com/farspeak/farspeak/test/peer"
)

// liveStream reads the responses of a live session.
type liveStream struct {
	conn    *bufio.Reader
	records *bufio.Reader
}

func (l *liveStream) next() (*fspb.ContactData, error) {
	for l.records == nil {
		response, err := http.ReadResponse(l.conn, nil)
		if err != nil {
			return nil, err
		}
		switch response.StatusCode {
		case http.StatusContinue:
		case http.StatusOK:
			l.records = bufio.NewReader(response.Body)
		default:
			return nil, errors.New(response.Status)
		}
	}
	return peer.ReadContact(l.records)
}

// like reads a record that was recorded as want. The original put broadcasts into its first record; they may as well come
// in one of their own right after it.
func (l *liveStream) like(want *fspb.ContactData) (*fspb.ContactData, error) {
	got, err := l.next()
	if err != nil || len(got.Messages) > 0 || len(want.Messages) == 0 {
		return got, err
	}
	push, err := l.next()
	if err != nil {
		return nil, err
	}
	if push.SequencingNonce != got.SequencingNonce {
		return nil, fmt.Errorf("a push with nonce %d after %d", push.SequencingNonce, got.SequencingNonce)
	}
	got.Messages = push.Messages
	return got, nil
}

// withHeader adds the certificate to a request's header, which stands whole in one read.
func withHeader(b, certificate []byte) []byte {
	line := []byte(" HTTP/1.1\r\n")
	return bytes.Replace(b, line, fmt.Appendf(nil, " HTTP/1.1\r\n%s: %s\r\n", certificateHeader, peer.HeaderValue(certificate)), 1)
}

// countRecords is how many records stand complete in a recorded response that may go on.
func countRecords(b []byte) (n int) {
	live := &liveStream{conn: bufio.NewReader(bytes.NewReader(b))}
	for {
		if _, err := live.next(); err != nil {
			return n
		}
		n++
	}
}

// contactsOf takes a recorded response body apart.
func contactsOf(t *testing.T, body []byte) (contacts []*fspb.ContactData) {
	t.Helper()
	for r := bufio.NewReader(bytes.NewReader(body)); ; {
		contact, err := peer.ReadContact(r)
		if errors.Is(err, io.EOF) {
			return contacts
		}
		if err != nil {
			t.Fatal(err)
		}
		contacts = append(contacts, contact)
	}
}

func inflated(r io.Reader, encoding string) (io.Reader, error) {
	if encoding == "deflate" {
		return zlib.NewReader(r)
	}
	return r, nil
}
