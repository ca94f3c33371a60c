package server_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/server"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// An idle session has no goroutine of its own; one that is compressed has one, which reads. Nor does it ask the store
// anything (G-29).
func TestIdleSessionsCostNoGoroutines(t *testing.T) {
	const sessions = 100
	for encoding, most := range map[string]float64{"": 0.1, "deflate": 1.1} {
		t.Run("encoding "+encoding, func(t *testing.T) {
			var faulty *faultyStore
			f := start(t, withFaults(&faulty))
			before := runtime.NumGoroutine()
			for range sessions {
				f.idle(t, encoding)
			}
			each := func() float64 { return float64(runtime.NumGoroutine()-before) / sessions }
			waitFor(t, "the goroutines of the opening to end", func() bool { return each() <= most })
			asked := faulty.count(dueMessages)
			for range 20 { // rounds of the scheduler: nothing wakes up by itself
				runtime.Gosched()
			}
			if again := faulty.count(dueMessages); again != asked || each() > most {
				t.Errorf("%v goroutines for an idle session, %d questions to the store", each(), again-asked)
			}
		})
	}
}

// idle opens a session that then has nothing to say. It has sent a record, as every agent has.
func (f *fixture) idle(t testing.TB, encoding string) *testStream {
	t.Helper()
	agent := newTestAgent(t, f.address)
	encode := func(raw []byte) []byte { return raw }
	if encoding == "deflate" {
		encode = newDeflated(t).piece
	}
	stream := agent.openEncoded(encoding, encode(agent.first(&fspb.ContactData{})))
	stream.status()
	stream.next()
	stream.send(encode(framed(agent.wrap(manyMessages(1)))))
	stream.next()
	return stream
}

// One client has one record in processing at a time, however many it sends: the line to it is the queue (G-29).
func TestRecordsInProcessingAreBounded(t *testing.T) {
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	letGo := f.services.hold()
	const records = 50
	for i := range records {
		stream.send(framed(agent.wrap(&fspb.ContactData{Messages: []*fspb.Message{toService("S", fmt.Sprint(i))}})))
	}
	waitFor(t, "the first record to be taken up", func() bool { return f.services.waiting() > 0 })
	if waiting := f.services.waiting(); waiting != 1 {
		t.Errorf("%d records of one client in processing, want 1", waiting)
	}
	letGo()
	for want := uint64(1); want <= records; want++ {
		if got := stream.next().AckIndex; got != want {
			t.Fatalf("acknowledgement %d, want %d", got, want)
		}
	}
}

// Parked sessions wake up for everything that can happen to them: records whole and in pieces, pushes, the end.
func TestParkedSessionsWakeUp(t *testing.T) {
	f := start(t)
	stream := f.idle(t, "")
	agent := newTestAgent(t, f.address)
	record := framed(agent.wrap(manyMessages(2)))
	for index := range uint64(3) {
		for _, b := range record { // in as many chunks as there are bytes
			stream.send([]byte{b})
		}
		if got := stream.next().AckIndex; got != index+2 {
			t.Fatalf("acknowledgement %d, want %d", got, index+2)
		}
	}
	if err := stream.body.Close(); err != nil { // the last chunk
		t.Fatal(err)
	}
	stream.ended()
	gone := f.idle(t, "")
	if err := netConn(gone.raw).Close(); err != nil { // without a goodbye
		t.Fatal(err)
	}
	waitFor(t, "both sessions to be forgotten", func() bool { return f.server.Sessions() == 0 })
}

const streamRequest = "POST /streaming-message HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"

// chunked is raw as one chunk of a body.
func chunked(raw []byte) []byte { return fmt.Appendf(nil, "%x\r\n%s\r\n", len(raw), raw) }

// sized is a record of exactly that many bytes, with its length.
func (a *testAgent) sized(size int) []byte {
	a.t.Helper()
	for fill := range size {
		m := toService("S", string(make([]byte, fill)))
		if record := framed(a.wrap(&fspb.ContactData{Messages: []*fspb.Message{m}})); len(record) == size {
			return record
		}
	}
	a.t.Fatalf("no record has %d bytes", size)
	return nil
}

// Records that come together are all seen, wherever they wait: in TLS, in the session's buffer, or still in the socket.
func TestRecordsThatComeTogether(t *testing.T) {
	const records = 40
	f := start(t)
	agent := newTestAgent(t, f.address)
	stream, _ := agent.session(&fspb.ContactData{})
	several := chunked(bytes.Repeat(framed(agent.wrap(manyMessages(1))), records))
	for want := uint64(1); want <= 3*records; want++ {
		if want%records == 1 {
			if _, err := stream.raw.Write(several); err != nil { // in one piece of TLS
				t.Fatal(err)
			}
		}
		if got := stream.next().AckIndex; got != want {
			t.Fatalf("acknowledgement %d, want %d", got, want)
		}
	}
}

// Records that net/http has read together with the request are seen, also when the session's buffer ends with one of them.
func TestRecordsThatComeWithTheRequest(t *testing.T) {
	const buffer = 512 // of a session
	f := start(t)
	agent := newTestAgent(t, f.address)
	body := agent.first(&fspb.ContactData{})
	body = append(body, agent.sized(buffer-len("400\r\n")-len(body))...)
	body = append(body, agent.sized(2*buffer-len(body))...)
	stream := &testStream{t: t, raw: agent.dial()}
	stream.request(streamRequest + string(chunked(body)))
	stream.status()
	for want := range uint64(3) {
		if got := stream.next().AckIndex; got != want {
			t.Fatalf("acknowledgement %d, want %d", got, want)
		}
	}
}

// heldConn keeps what is written to it until it is flushed.
type heldConn struct {
	net.Conn
	holding bool
	held    []byte
}

func (c *heldConn) Write(p []byte) (int, error) {
	if !c.holding {
		return c.Conn.Write(p)
	}
	c.held = append(c.held, p...)
	return len(p), nil
}

// flush sends it, also after the goodbye, which has ended all writes.
func (c *heldConn) flush() error {
	if err := c.SetWriteDeadline(time.Now().Add(ioTimeout)); err != nil {
		return err
	}
	_, err := c.Conn.Write(c.held)
	return err
}

// A goodbye of TLS that comes together with a record is heard, though the connection stays.
func TestGoodbyeBehindARecord(t *testing.T) {
	f := start(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			agent := newTestAgent(t, f.address)
			line, err := net.Dial("tcp", f.address)
			if err != nil {
				t.Fatal(err)
			}
			config, held := agent.tls("http/1.1"), &heldConn{Conn: line}
			config.MaxVersion = version
			secured := tls.Client(held, config)
			t.Cleanup(func() { _ = secured.Close() })
			if err := secured.SetDeadline(time.Now().Add(ioTimeout)); err != nil {
				t.Fatal(err)
			}
			stream := &testStream{t: t, raw: secured}
			stream.request(streamRequest)
			stream.send(agent.first(&fspb.ContactData{}))
			stream.status()
			stream.next()
			held.holding = true
			stream.send(framed(agent.wrap(manyMessages(1))))
			if err := errors.Join(secured.CloseWrite(), held.flush()); err != nil {
				t.Fatal(err)
			}
			if got := stream.next().AckIndex; got != 1 {
				t.Fatalf("acknowledgement %d, want 1", got)
			}
			stream.ended()
		})
	}
}

// Parked sessions are told of a drain, and those that stay are cut.
func TestParkedSessionsDrain(t *testing.T) {
	f := start(t, func(c *server.Config) { c.DrainTimeout = 2 * time.Second })
	var streams []*testStream
	for range 100 {
		streams = append(streams, f.idle(t, ""))
	}
	started := time.Now()
	f.stop()
	if took := time.Since(started); took > ioTimeout/2 {
		t.Errorf("the drain took %v, its timeout is 2 s", took)
	}
	for _, stream := range streams {
		if got := stream.next(); !got.DoneSending {
			t.Fatalf("got %v, want done_sending", got)
		}
		stream.ended()
	}
}
