package notify

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	// connectionIdle is after what time an unused line is closed.
	connectionIdle = 90 * time.Second
	// maxReplyHeader and maxReplyBody bound a reply. The first costs the request, the second only the line.
	maxReplyHeader = 16 << 10
	maxReplyBody   = 4 << 10
	// requestHeader is room for the header of a request.
	requestHeader = 512
	// maxInterim is how many replies of the sort "100 Continue", which nobody asked for, may come before the reply.
	maxInterim = 4
)

// line is the connection to one server, kept from request to request. Its owner, the sender of the server, writes requests
// and reads replies itself: net/http's client has two goroutines for that, and a hint that comes alone would wait until
// both have woken up.
type line struct {
	conn    net.Conn
	bounded io.LimitedReader // what may still be read of conn, for this reply
	replies *bufio.Reader    // of bounded
}

func newLine(conn net.Conn) *line {
	l := &line{conn: conn, bounded: io.LimitedReader{R: conn}}
	l.replies = bufio.NewReader(&l.bounded)
	return l
}

// exchange makes one request of a target and returns the status of the reply. On the line that was kept it is made once
// more, on a new one, if that fails: the server may have closed it just now, and a hint that comes twice does no harm.
func (c *Client) exchange(ctx context.Context, t *target, request *http.Request) (status int, err error) {
	var text bytes.Buffer
	text.Grow(requestHeader + int(request.ContentLength))
	if err := request.Write(&text); err != nil {
		return 0, fmt.Errorf("write request: %w", err)
	}
	if t.line != nil {
		// A proxy in between says 408 when it has waited too long for a request: before it had this one.
		status, err = c.exchangeOn(ctx, t, text.Bytes())
		if err == nil && status != http.StatusRequestTimeout || ctx.Err() != nil {
			return status, err
		}
		t.hangUp()
	}
	conn, err := c.dialer.DialContext(ctx, "tcp", t.address)
	if err != nil {
		return 0, err
	}
	t.line = newLine(conn)
	return c.exchangeOn(ctx, t, text.Bytes())
}

// exchangeOn uses the line of a target, and gives it up when it cannot be used again.
func (c *Client) exchangeOn(ctx context.Context, t *target, request []byte) (status int, err error) {
	l := t.line
	unwatched := context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) }) // ends what is under way
	status, reusable, err := l.exchange(request)
	inTime := unwatched()
	if err != nil || !reusable || !inTime {
		t.hangUp()
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err() // rather than the deadline that it set
	}
	return status, err
}

// exchange writes a request and reads the reply; reusable says that both were complete, and that the server stays.
func (l *line) exchange(request []byte) (status int, reusable bool, err error) {
	if _, err := l.conn.Write(request); err != nil {
		return 0, false, err
	}
	l.bounded.N = maxReplyHeader + maxReplyBody
	for range maxInterim {
		reply, err := http.ReadResponse(l.replies, nil)
		if err != nil {
			return 0, false, err
		}
		if reply.StatusCode/100 == 1 {
			continue
		}
		n, err := io.CopyN(io.Discard, reply.Body, maxReplyBody)
		_ = reply.Body.Close() // of a reader that was read, or that goes with its line
		whole := n < maxReplyBody && errors.Is(err, io.EOF)
		return reply.StatusCode, whole && !reply.Close && l.replies.Buffered() == 0, nil
	}
	return 0, false, errors.New("no reply after several that are not final")
}

// hangUp closes the line. Its owner calls it, or who holds Client.mu while the target has no sender.
func (t *target) hangUp() {
	if t.line != nil {
		_ = t.line.conn.Close() // nothing is under way on it that would be wanted
		t.line = nil
	}
}

// rest sees to it that the line of a target is closed when it is not used for a while. The caller holds mu, and the target
// has no sender.
func (c *Client) rest(t *target) {
	switch {
	case t.line == nil:
	case t.idle == nil:
		t.idle = time.AfterFunc(connectionIdle, func() { c.rested(t) })
	default:
		t.idle.Reset(connectionIdle)
	}
}

func (c *Client) rested(t *target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !t.sending && time.Since(t.used) >= connectionIdle {
		t.hangUp()
	}
}

// forget ends what a target holds. The caller holds mu, and the target has no sender.
func (t *target) forget() {
	t.hangUp()
	if t.idle != nil {
		t.idle.Stop()
	}
}
