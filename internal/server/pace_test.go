package server_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/clientcert"
	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// large is a contact of about that many bytes, which do not compress to nothing when they are sent flushed in pieces.
func (a *testAgent) large(size int) []byte {
	a.t.Helper()
	m := toService("S", "large")
	m.Data = &anypb.Any{TypeUrl: "type.googleapis.com/test", Value: bytes.Repeat([]byte("0123456789abcdef"), size/16)}
	return a.wrap(&fspb.ContactData{Messages: []*fspb.Message{m}})
}

// openPoll sends the header of a poll through a pipe.
func (a *testAgent) openPoll(l *pipeListener) *testStream {
	a.t.Helper()
	s := &testStream{t: a.t, raw: l.dial(a.t)}
	s.request("POST /message HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n" +
		testHeader + ": " + clientcert.EncodeHeader(a.certificate.Certificate[0]) + "\r\n\r\n")
	return s
}

// endBody ends the body of a request.
func (s *testStream) endBody() {
	s.t.Helper()
	if _, err := io.WriteString(s.raw, "0\r\n\r\n"); err != nil {
		s.t.Fatal(err)
	}
}

// trickle sends raw at an even rate, in pieces of a second.
func (s *testStream) trickle(raw []byte, perSecond int) {
	s.t.Helper()
	for len(raw) > 0 {
		n := min(perSecond, len(raw))
		s.send(raw[:n])
		raw = raw[n:]
		time.Sleep(time.Second)
	}
}

const (
	slowly  = 16 << 10 // bytes a second
	upload  = 8 << 20  // takes eight and a half minutes
	stalled = 1 << 20  // of a larger record
)

// A large record may take its time as long as it goes on: as record 0, as a later one, and as a poll.
func TestSlowUploads(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fixture, l *pipeListener) {
		agent := newTestAgent(t, "")
		stream := agent.openPipe(l, magic)
		stream.trickle(framed(agent.large(upload)), slowly)
		if status := stream.status(); status != http.StatusOK {
			t.Fatalf("status %d", status)
		}
		stream.next()
		stream.trickle(framed(agent.large(upload)), slowly)
		if got := stream.next(); got.AckIndex != 1 {
			t.Errorf("got %v, want an acknowledgement", got)
		}

		poll := agent.openPoll(l)
		poll.trickle(agent.large(upload), slowly)
		poll.endBody()
		if status := poll.status(); status != http.StatusOK {
			t.Errorf("a poll: status %d", status)
		}
		if taken := len(f.services.taken()); taken != 3 {
			t.Errorf("%d messages arrived, want 3", taken)
		}
	}, withLifetime(time.Hour))
}

// The same when the line is slow and the record compressed: what comes out of the decompressor counts.
func TestSlowCompressedUpload(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fixture, l *pipeListener) {
		agent := newTestAgent(t, "")
		deflated := newDeflated(t)
		stream := agent.openPipeEncoded(l, "deflate", deflated.piece(agent.first(&fspb.ContactData{})))
		stream.status()
		stream.next()
		for raw := framed(agent.large(upload)); len(raw) > 0; raw = raw[min(slowly, len(raw)):] {
			stream.send(deflated.piece(raw[:min(slowly, len(raw))]))
			time.Sleep(time.Second)
		}
		if got := stream.next(); got.AckIndex != 1 {
			t.Errorf("got %v, want an acknowledgement", got)
		}
	}, withLifetime(time.Hour))
}

// A large record that stalls is cut off soon, compressed to next to nothing or not: it holds memory (G-03).
func TestStalledUploads(t *testing.T) {
	for _, encoding := range []string{"", "deflate"} {
		t.Run("encoding "+encoding, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fixture, l *pipeListener) {
				agent := newTestAgent(t, "")
				raw := append(bytes.Clone(magic), framed(agent.large(upload))[:stalled]...)
				if encoding != "" {
					raw = newDeflated(t).piece(raw)
				}
				stream := agent.openPipeEncoded(l, encoding, raw)
				started := time.Now()
				if got := stream.status(); got != http.StatusRequestTimeout {
					t.Errorf("status %d, want 408", got)
				}
				if waited := time.Since(started); waited != 30*time.Second {
					t.Errorf("the stalled record was waited for %v, want 30 s", waited)
				}
				if held := gauge(t, f.registry, "farspeak_record_memory_bytes"); held != 0 {
					t.Errorf("%v bytes are still held", held)
				}
			})
		})
	}
}

func TestStalledPoll(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fixture, l *pipeListener) {
		agent := newTestAgent(t, "")
		poll := agent.openPoll(l)
		poll.send(agent.large(upload)[:stalled])
		started := time.Now()
		if got := poll.status(); got != http.StatusBadRequest {
			t.Errorf("status %d, want 400", got)
		}
		if waited := time.Since(started); waited != 30*time.Second {
			t.Errorf("the stalled poll was waited for %v, want 30 s", waited)
		}
	})
}

// However steady, a record ends with the time that the original gives to a request.
func TestLongestUpload(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fixture, l *pipeListener) {
		agent := newTestAgent(t, "")
		stream := agent.openPipe(l, magic)
		started := time.Now()
		raw := framed(agent.large(wire.MaxClientRecord - 1<<10))
		for len(raw) > 0 {
			if _, err := stream.body.Write(raw[:10<<10]); err != nil {
				break
			}
			raw = raw[10<<10:]
			time.Sleep(time.Second)
		}
		if took := time.Since(started); took < 20*time.Minute || took > 20*time.Minute+10*time.Second {
			t.Errorf("cut off after %v, want 20 min", took)
		}
	})
}

// Clients that stall in large records hold up those of others for half a minute at most, and one client alone holds up
// nobody (G-03).
func TestStalledUploadsLeaveRoom(t *testing.T) {
	const (
		most    = wire.MaxClientRecord - 1<<10
		stalls  = 4       // take all but 16 MiB
		usually = 9 << 20 // needs 24 MiB on its way
	)
	inBubble(t, func(t *testing.T, f *fixture, l *pipeListener) {
		stall := func(agent *testAgent) {
			stream := agent.openPipe(l, magic)
			raw := framed(agent.large(most))
			_, _ = stream.body.Write(raw[:len(raw)-1]) // as far as it is read
		}
		status := func(agent *testAgent) int {
			stream := agent.openPipe(l, magic)
			go func() { _, _ = stream.body.Write(framed(agent.large(usually))) }() // the same
			return stream.status()
		}
		for range stalls {
			stall(newTestAgent(t, ""))
		}
		late := newTestAgent(t, "")
		if got := status(late); got != http.StatusServiceUnavailable {
			t.Errorf("status %d while others hold the memory, want 503", got)
		}
		time.Sleep(31 * time.Second)
		if got := status(late); got != http.StatusOK {
			t.Errorf("status %d after the others were cut off", got)
		}

		greedy := newTestAgent(t, "")
		for range stalls {
			go stall(greedy)
		}
		synctest.Wait()
		if got := status(late); got != http.StatusOK {
			t.Errorf("status %d while one client has its share", got)
		}
	}, func(c *server.Config) { c.RecordMemory = 96 << 20 })
}
