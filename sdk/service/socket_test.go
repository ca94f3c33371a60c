package service_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	"github.com/farspeak/farspeak/sdk/service"
)

// TestSocketOrder: own magic at once, then the agent's, then StartupData, then messages.
func TestSocketOrder(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := newAgency(t)
		s := a.open(service.SocketConfig{Version: "7"})
		mustSend(t, s, "kept from before")
		p := a.accept()
		p.expectMagic()
		read := make(chan []byte, 1)
		p.reading.Go(func() {
			b := make([]byte, 1)
			n, _ := p.conn.Read(b)
			read <- b[:n]
		})
		synctest.Wait()
		if len(read) > 0 {
			t.Errorf("read %x before the agent's magic was sent", <-read)
		}
		p.sendMagic()
		p.in = io.MultiReader(bytes.NewReader(<-read), p.conn)
		p.expect(startupFrame(t, int64(os.Getpid()), "7"))
		if m := p.mustReceive(); textOf(m) != "kept from before" || len(m.SourceMessageId) != 16 {
			t.Errorf("got %v, want the message with an ID of 16 bytes", m)
		}
		p.hangUp()
		if err := s.Close(); err == nil || err.Error() != "1 messages were not acknowledged" {
			t.Errorf("Close: %v", err)
		}
	})
}

func TestSocketReceives(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := newAgency(t)
		s := a.open(service.SocketConfig{Version: "7"})
		p := a.greet()
		large := strings.Repeat("x", 2<<20-200)
		otherAck := localAck(t)
		otherAck.Source.ServiceName = "backend" // of the type, but not from the agent
		p.send(localAck(t, []byte("unknown")))
		p.send(request(t, "a"))
		p.send(otherAck)
		p.send(request(t, large))
		for i, want := range []string{"a", "", large} {
			m, err := s.Receive(t.Context())
			if err != nil || want != "" && textOf(m) != want || want == "" && m.MessageType != "LocalAck" {
				t.Errorf("message %d is %.100v, %v", i, m, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if m, err := s.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, %v; want nothing more: acknowledgements are not for the program", m, err)
		}
		p.hangUp()
		s.Close()
		if _, err := s.Receive(t.Context()); !errors.Is(err, service.ErrClosed) {
			t.Errorf("Receive after Close: %v", err)
		}
	})
}

// TestKeptUntilAcknowledged: what was not acknowledged goes out again, under its ID, in order and before all else.
func TestKeptUntilAcknowledged(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := newAgency(t)
		s := a.open(service.SocketConfig{Version: "7"})
		p := a.greet()
		mustSend(t, s, "a", "b", "c", "d")
		_, ids := p.texts(4)
		p.send(localAck(t, ids[1], []byte("unknown"), ids[1], nil))
		p.send(localAck(t, ids[3]))
		synctest.Wait()
		time.Sleep(time.Minute)
		p.hangUp()
		mustSend(t, s, "e")

		p = a.greet()
		texts, again := p.texts(3)
		if !slices.Equal(texts, []string{"a", "c", "e"}) || !bytes.Equal(again[0], ids[0]) || !bytes.Equal(again[1], ids[2]) {
			t.Errorf("sent again: %q under %x, want a and c as before, then e; before: %x", texts, again, ids)
		}
		flushed := make(chan error, 1)
		go func() { flushed <- s.Flush(t.Context()) }() // received below
		synctest.Wait()
		if len(flushed) > 0 {
			t.Errorf("Flush returned %v before all was acknowledged", <-flushed)
		}
		p.send(localAck(t, again...))
		if err := <-flushed; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, more := <-p.frames; more {
			t.Error("more was sent than there was")
		}
		p.hangUp()
		if err := s.Send(t.Context(), toBackend(t, "x")); !errors.Is(err, service.ErrClosed) {
			t.Errorf("Send after Close: %v", err)
		}
	})
}

// TestOwnIDIsKept: a program may name its messages, and the same name twice is one message.
func TestOwnIDIsKept(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := newAgency(t)
		s := a.open(service.SocketConfig{Version: "7"})
		m := toBackend(t, "x")
		m.SourceMessageId = []byte("AAABBBCCC")
		for range 2 {
			if err := s.Send(t.Context(), m); err != nil {
				t.Error(err)
			}
		}
		anonymous := toBackend(t, "y")
		for range 2 {
			if err := s.Send(t.Context(), anonymous); err != nil {
				t.Error(err)
			}
		}
		p := a.greet()
		texts, ids := p.texts(2)
		if !slices.Equal(texts, []string{"x", "y"}) || string(ids[0]) != "AAABBBCCC" {
			t.Errorf("got %q under %q", texts, ids)
		}
		p.send(localAck(t, ids...))
		if err := s.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		s.Close()
		p.hangUp()
	})
}

// TestWindow: no more messages are under way than an agent of the original can acknowledge without stalling (G-61).
func TestWindow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := newAgency(t)
		s := a.open(service.SocketConfig{Version: "7"})
		for i := range 250 {
			mustSend(t, s, fmt.Sprint(i))
		}
		p := a.greet()
		synctest.Wait()
		if len(p.frames) != 100 {
			t.Errorf("%d messages are under way, want 100", len(p.frames))
		}
		next := 0
		for next < 250 {
			texts, ids := p.texts(min(50, 250-next))
			for _, text := range texts {
				if text != fmt.Sprint(next) {
					t.Fatalf("message %q, want %d", text, next)
				}
				next++
			}
			p.send(localAck(t, ids...))
			synctest.Wait()
			if want := min(100, 250-next); len(p.frames) != want {
				t.Errorf("%d messages under way after %d, want %d", len(p.frames), next, want)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		p.hangUp()
	})
}

func TestSendWaitsForRoom(t *testing.T) {
	for name, c := range map[string]struct {
		cfg   service.SocketConfig
		size  int
		count int
	}{
		"by number": {service.SocketConfig{Version: "7", MaxKept: 5}, 1, 5},
		"by size":   {service.SocketConfig{Version: "7"}, 2 << 20 * 9 / 10, service.KeptBytes / (2 << 20 * 9 / 10)},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				a := newAgency(t)
				s := a.open(c.cfg)
				text := strings.Repeat("x", c.size)
				for range c.count {
					mustSend(t, s, text)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := s.Send(ctx, toBackend(t, text)); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v, want Send to wait until the deadline", err)
				}
				p := a.greet()
				var sending sync.WaitGroup
				sending.Go(func() { mustSend(t, s, text) })
				_, ids := p.texts(1)
				p.send(localAck(t, ids...))
				sending.Wait()
				sending.Go(func() {
					if err := s.Send(t.Context(), toBackend(t, text)); !errors.Is(err, service.ErrClosed) {
						t.Errorf("error %v of a Send that waits, want ErrClosed", err)
					}
				})
				synctest.Wait()
				if err := s.Close(); err == nil {
					t.Error("Close does not tell of what the server has not got")
				}
				sending.Wait()
				p.hangUp()
			})
		})
	}
}

func TestSocketRefusesToSend(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := newAgency(t)
		s := a.open(service.SocketConfig{})
		defer s.Close()
		heartbeat := &fspb.Message{Destination: &fspb.Address{ServiceName: "system"}, MessageType: "Heartbeat"} // G-45
		local := toBackend(t, "")
		local.Destination.ClientId = []byte("clientAA")
		for name, c := range map[string]struct {
			m    *fspb.Message
			want string
		}{
			"nil":            {nil, "no destination"},
			"no destination": {&fspb.Message{}, "no destination"},
			"to the agent":   {heartbeat, "belongs to the agent"},
			"to a client":    {local, "on a client"},
			"too large":      {toBackend(t, strings.Repeat("x", service.MaxMessage)), "too large"},
		} {
			if err := s.Send(t.Context(), c.m); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: error %v, want %q", name, err, c.want)
			}
		}
	})
}

// TestPauses: at once, then after 1 s, 1.5 s and so on up to 15 s; from 1 s again after each success.
func TestPauses(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := newAgency(t)
		begin := time.Now()
		s := a.open(service.SocketConfig{Version: "7"})
		last := begin
		refused := func(want time.Duration) {
			t.Helper()
			a.refuse()
			if got := time.Since(last); got != want {
				t.Errorf("pause of %v, want %v", got, want)
			}
			last = time.Now()
		}
		refused(0)
		pause := time.Second
		for range 10 {
			refused(pause)
			pause = min(pause*3/2, 15*time.Second)
		}
		p := a.greet()
		time.Sleep(time.Hour)
		last = time.Now()
		p.hangUp()
		refused(0) // the connection was good: at once
		refused(time.Second)
		last = time.Now()
		p = a.greet()
		p.hangUp() // an agent that hangs up at once
		last = time.Now()
		refused(time.Second)
		synctest.Wait()
		s.Close()
		if n := len(a.failures()); n != 16 || !errors.Is(a.failures()[0], errRefused) || !strings.Contains(a.failures()[11].Error(), "EOF") {
			t.Errorf("told of %d failures: %v", n, a.failures())
		}
	})
}

// TestSecondPeerWaits: an agent serves one connection at a time; to others it says nothing.
func TestSecondPeerWaits(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := newAgency(t)
		s := a.open(service.SocketConfig{Version: "7"})
		begin := time.Now()
		silent := a.accept()
		silent.expectMagic()
		p := a.greet()
		if took := time.Since(begin); took != 5*time.Minute+time.Second {
			t.Errorf("connected again after %v, want five minutes and a pause", took)
		}
		silent.hangUp()
		s.Close()
		p.hangUp()
	})
}

func TestGarbageFromTheAgentEndsTheConnection(t *testing.T) {
	for name, garbage := range map[string]string{
		"size":  "\x01\x00\x20\x00",
		"magic": "\x00\x00\x00\x00\xff\xff\xff\xff",
		"body":  "\x02\x00\x00\x00\xff\xff",
		"ack":   "\x14\x00\x00\x00\x12\x08\x12\x06client\x2a\x08LocalAck",
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				a := newAgency(t)
				s := a.open(service.SocketConfig{Version: "7"})
				mustSend(t, s, "kept")
				p := a.greet()
				p.texts(1)
				p.write([]byte(garbage))
				again := a.greet()
				if texts, _ := again.texts(1); !slices.Equal(texts, []string{"kept"}) {
					t.Errorf("on the next connection came %q", texts)
				}
				p.hangUp()
				s.Close()
				again.hangUp()
			})
		})
	}
}

// TestReceivedIsNotLost: what came over a connection counts as delivered, so that it outlives the connection.
func TestReceivedIsNotLost(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := newAgency(t)
		s := a.open(service.SocketConfig{Version: "7"})
		p := a.greet()
		const count = service.InboxSize // the last fills the inbox: its magic is not read any more
		for i := range count - 1 {
			p.send(request(t, fmt.Sprint(i)))
		}
		p.sendBody(request(t, fmt.Sprint(count-1)))
		synctest.Wait()
		p.hangUp()
		for i := range count {
			if m, err := s.Receive(t.Context()); err != nil || textOf(m) != fmt.Sprint(i) {
				t.Errorf("message %d is %v, %v", i, m, err)
			}
		}
		p = a.greet()
		s.Close()
		p.hangUp()
	})
}

// TestManyMessagesOverBadConnections: none is lost, whenever a connection ends.
func TestManyMessagesOverBadConnections(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const count = 1000
		a := newAgency(t)
		s := a.open(service.SocketConfig{Version: "7", MaxKept: 50})
		var sending sync.WaitGroup
		sending.Go(func() {
			for i := range count {
				mustSend(t, s, fmt.Sprint(i))
			}
			if err := s.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		})
		accepted := map[string]bool{}
		for round := 0; len(accepted) < count; round++ {
			p := a.greet()
			p.takeSome(accepted, 5+round%3, count)
			if len(accepted) == count {
				sending.Wait()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
			p.hangUp()
		}
	})
}

// takeSome takes messages and acknowledges all but the last, unless that is the last of all.
func (p *socketPeer) takeSome(accepted map[string]bool, some, all int) {
	for i := range some {
		texts, ids := p.texts(1)
		if len(texts) == 0 {
			return
		}
		accepted[texts[0]] = true
		if i < some-1 || len(accepted) == all {
			p.send(localAck(p.tb, ids...))
		}
		if len(accepted) == all {
			return
		}
	}
}
