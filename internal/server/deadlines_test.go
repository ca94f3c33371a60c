package server_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

var magic = []byte{0x01, 0x10, 0xee, 0xf1}

// first is the beginning of a session: magic and record 0.
func (a *testAgent) first(data *fspb.ContactData) []byte {
	a.t.Helper()
	return append(append([]byte(nil), magic...), framed(a.wrap(data))...)
}

// A peer that says nothing after its request is cut off soon.
func TestSilenceBeforeTheFirstRecord(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fixture, l *pipeListener) {
		stream := newTestAgent(t, "").openPipe(l, nil)
		started := time.Now()
		if got := stream.status(); got != http.StatusRequestTimeout {
			t.Errorf("status %d, want 408", got)
		}
		if waited := time.Since(started); waited != 30*time.Second {
			t.Errorf("the silent peer was cut after %v", waited)
		}
	})
}

// Record 0 may take as long as any record, once it has begun: slow lines exist.
func TestSlowFirstRecord(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fixture, l *pipeListener) {
		agent := newTestAgent(t, "")
		raw := agent.first(&fspb.ContactData{})
		stream := agent.openPipe(l, raw[:5])
		time.Sleep(2 * time.Minute)
		stream.send(raw[5:])
		if got := stream.status(); got != http.StatusOK {
			t.Errorf("status %d", got)
		}
	})
}

// A record that does not come to its end costs its peer the session, and nobody else anything (G-03).
func TestRecordThatNeverEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fixture, l *pipeListener) {
		agent := newTestAgent(t, "")
		stream := agent.openPipe(l, agent.first(&fspb.ContactData{}))
		stream.status()
		stream.next()
		time.Sleep(time.Minute)
		stream.send([]byte{100, 1, 2, 3})
		started := time.Now()
		stream.ended()
		if waited := time.Since(started); waited != 3*time.Minute {
			t.Errorf("the record was waited for %v, want 3 min from its first byte", waited)
		}
	})
}

// The same when the record began inside the piece of compressed data that ended the one before it: its first bytes are in
// the decompressor then, and no read tells of them.
func TestCompressedRecordThatNeverEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fixture, l *pipeListener) {
		agent := newTestAgent(t, "")
		deflated := newDeflated(t)
		stream := agent.openPipeEncoded(l, "deflate", deflated.piece(agent.first(&fspb.ContactData{})))
		stream.status()
		stream.next()
		record := framed(agent.wrap(&fspb.ContactData{}))
		stream.send(deflated.piece(append(record, record[:len(record)-1]...)))
		if got := stream.next().AckIndex; got != 1 {
			t.Fatalf("acknowledgement %d", got)
		}
		started := time.Now()
		stream.ended()
		if waited := time.Since(started); waited != 3*time.Minute {
			t.Errorf("the record was waited for %v, want 3 min", waited)
		}
	})
}

// An idle session has no deadline and no timer: it lives as long as it is allowed to, and works at its end.
func TestIdleSessionLives(t *testing.T) {
	const lifetime = time.Hour
	for _, encoding := range []string{"", "deflate"} {
		t.Run("encoding "+encoding, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fixture, l *pipeListener) {
				agent := newTestAgent(t, "")
				deflated := newDeflated(t)
				encode := func(raw []byte) []byte {
					if encoding == "" {
						return raw
					}
					return deflated.piece(raw)
				}
				stream := agent.openPipeEncoded(l, encoding, encode(agent.first(&fspb.ContactData{})))
				stream.status()
				stream.next()
				for want := uint64(1); want <= 3; want++ {
					time.Sleep(lifetime / 5)
					stream.send(encode(framed(agent.wrap(&fspb.ContactData{}))))
					if got := stream.next(); got.AckIndex != want {
						t.Fatalf("got %v, want acknowledgement %d", got, want)
					}
				}
			}, withLifetime(lifetime))
		})
	}
}

// A session is told to leave once, gets its grace, and is then cut (G-08, G-59).
func TestEndOfLifetime(t *testing.T) {
	const lifetime = 10 * time.Minute
	inBubble(t, func(t *testing.T, f *fixture, l *pipeListener) {
		agent := newTestAgent(t, "")
		stream := agent.openPipe(l, agent.first(&fspb.ContactData{}))
		stream.status()
		stream.next()
		started := time.Now()
		if got := stream.next(); !got.DoneSending {
			t.Fatalf("got %v, want done_sending", got)
		}
		told := time.Since(started)
		if told < lifetime*4/5-31*time.Second || told > lifetime-29*time.Second {
			t.Errorf("told to leave after %v of at most %v", told, lifetime)
		}
		stream.ended()
		if grace := time.Since(started) - told; grace < 29*time.Second || grace > 32*time.Second {
			t.Errorf("cut %v after it was told, want 30 s", grace)
		}
	}, withLifetime(lifetime))
}

// A request whose body never comes does not hold its connection for ever, whatever is wrong with it.
func TestBodyThatNeverComes(t *testing.T) {
	for _, target := range []string{"/nothing", "/message", "/files/S/f", "/streaming-message"} {
		t.Run(target, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fixture, l *pipeListener) {
				conn := l.dial(t)
				stream := &testStream{t: t, raw: conn, reader: nil}
				stream.request("POST " + target + " HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 10\r\n\r\n")
				if ended := stream.endOf(); !within(2*time.Minute, ended) {
					t.Error("the connection is still open after 2 min")
				}
			})
		})
	}
}

// A client that does not read is cut off at the deadline of the write (G-08).
func TestClientThatDoesNotRead(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fixture, l *pipeListener) {
		agent := newTestAgent(t, "")
		stream := agent.openPipe(l, agent.first(&fspb.ContactData{}))
		stream.status()
		stream.next()
		go stream.send(framed(agent.wrap(&fspb.ContactData{}))) // a pipe takes it when the server reads
		synctest.Wait()
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if live := gauge(t, f.registry, "farspeak_sessions"); live != 0 {
			t.Errorf("%v sessions live, want the stuck one gone", live)
		}
	})
}
