package fleet

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"time"

	"github.com/farspeak/farspeak/internal/resume"
	"github.com/farspeak/farspeak/internal/wire"
)

// lineBuffer is the buffer of a session's HTTP framing, in bytes. Records pass it by.
const lineBuffer = 256

// link is one streaming session. One goroutine reads; writes are kept apart by the client's lock.
type link struct {
	conn    *tls.Conn
	began   time.Time // when the server answered
	records *wire.RecordReader
	first   *wire.Record // the answer to record 0, until it is taken
	leaving bool         // after done_sending; guarded by the client's lock
	acks    uint64       // that came; owned by the reading goroutine
}

// refused is an HTTP answer other than 200.
type refused struct {
	status int
	retry  time.Duration
	text   string
}

func (r *refused) Error() string {
	return fmt.Sprintf("refused with status %d: %s", r.status, r.text)
}

// retryAfter is how long a server wants to be left alone.
func retryAfter(err error) time.Duration {
	if r, ok := errors.AsType[*refused](err); ok {
		return r.retry
	}
	return 0
}

// requestHeader opens a streaming session as agents do.
func requestHeader(server string) string {
	return "POST /streaming-message HTTP/1.1\r\nHost: " + server + "\r\nUser-Agent: fsctl-load\r\n" +
		"Farspeak-Agent: load\r\n" +
		"Connection: close\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
}

// open makes a connection and does the first exchange: record is the chunk that begins the stream, and its answer is the link's first.
func (d *Dialer) open(ctx context.Context, server string, keys *Keyring, index int, tickets *resume.Cache, record []byte) (*link, error) {
	conn, err := d.Dial(ctx, server, keys, index, tickets)
	if err != nil {
		return nil, err
	}
	l := &link{conn: conn}
	said, err := l.begin(server, record)
	if err != nil {
		_ = conn.NetConn().Close()
		return nil, err
	}
	if tickets != nil {
		tickets.Learn(said)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		_ = conn.NetConn().Close()
		return nil, err
	}
	return l, nil
}

// begin does the first exchange and returns the header of the answer.
func (l *link) begin(server string, record []byte) (http.Header, error) {
	if _, err := io.WriteString(l.conn, requestHeader(server)); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	lines := bufio.NewReaderSize(l.conn, lineBuffer)
	if _, err := expect(lines, http.StatusContinue); err != nil {
		return nil, err
	}
	if _, err := l.conn.Write(record); err != nil {
		return nil, fmt.Errorf("record 0: %w", err)
	}
	header, err := expect(lines, http.StatusOK)
	if err != nil {
		return nil, err
	}
	l.records = wire.NewRecordReader(httputil.NewChunkedReader(lines), wire.FromServer(nil))
	first, err := l.records.Next()
	if err != nil {
		return nil, fmt.Errorf("answer to record 0: %w", err)
	}
	l.first, l.began = first, time.Now()
	return header, nil
}

// expect reads a response header and wants this status.
func expect(lines *bufio.Reader, status int) (http.Header, error) {
	response, err := http.ReadResponse(lines, nil)
	if err != nil {
		return nil, fmt.Errorf("response: %w", err)
	}
	if response.StatusCode == status {
		return response.Header, nil
	}
	text, _ := io.ReadAll(io.LimitReader(response.Body, 200))
	seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
	return nil, &refused{response.StatusCode, time.Duration(seconds) * time.Second, strings.TrimSpace(string(text))}
}

// write sends a chunk that is one record.
func (l *link) write(chunk []byte) error {
	if err := l.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := l.conn.Write(chunk)
	return err
}

// close drops the connection, without a goodbye to a server that may not listen.
func (l *link) close() { _ = l.conn.NetConn().Close() }
