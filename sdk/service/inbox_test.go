package service_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	"github.com/farspeak/farspeak/sdk/service"
)

// silent is for a peer whose connection may end.
type silent struct{}

func (silent) Errorf(string, ...any) {}

// push sends messages in a goroutine of their own, which ends with the connection at the latest.
func (p *socketPeer) push(messages ...*fspb.Message) {
	to := &peer{tb: silent{}, out: p.conn}
	p.reading.Go(func() {
		for _, m := range messages {
			to.send(m)
		}
	})
}

// numbered are requests with the numbers from 0.
func numbered(tb failer, count int) []*fspb.Message {
	var out []*fspb.Message
	for i := range count {
		out = append(out, request(tb, fmt.Sprint(i)))
	}
	return out
}

// mustReceiveNumbered receives requests with the numbers from 0.
func mustReceiveNumbered(t *testing.T, s *service.Socket, count int) {
	t.Helper()
	for i := range count {
		if m, err := s.Receive(t.Context()); err != nil || textOf(m) != fmt.Sprint(i) {
			t.Fatalf("message %d is %v, %v", i, m, err)
		}
	}
}

// TestServeWithLateAcknowledgements: a program that waits in Send for acknowledgements receives nothing meanwhile, and they
// come behind what it does not receive.
func TestServeWithLateAcknowledgements(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const count = 10 * service.InboxSize
		a := newAgency(t)
		s := a.open(service.SocketConfig{Version: "7", MaxKept: 5})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var serving sync.WaitGroup
		serving.Go(func() {
			if err := service.Serve(ctx, s, answerText); err != nil {
				t.Error(err)
			}
		})
		p := a.greet()
		for _, m := range numbered(t, count) {
			p.send(m)
		}
		for i := range count {
			texts, ids := p.texts(1)
			if !slices.Equal(texts, []string{fmt.Sprint(i)}) {
				t.Fatalf("answer %d is %q", i, texts)
			}
			p.send(localAck(t, ids...))
		}
		stop()
		serving.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		p.hangUp()
	})
}

// TestFlushWhileNobodyReceives: the acknowledgement that Flush waits for comes behind messages.
func TestFlushWhileNobodyReceives(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const count = 10 * service.InboxSize
		a := newAgency(t)
		s := a.open(service.SocketConfig{Version: "7"})
		p := a.greet()
		mustSend(t, s, "x")
		_, ids := p.texts(1)
		p.push(append(numbered(t, count), localAck(t, ids...))...)
		if err := s.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		mustReceiveNumbered(t, s, count)
		s.Close()
		p.hangUp()
	})
}

// TestWindowWhileNobodyReceives: messages that wait for the window leave, though no call waits for them.
func TestWindowWhileNobodyReceives(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const window, rounds = 2, 10
		a := newAgency(t)
		s := a.open(service.SocketConfig{Version: "7", Window: window})
		for i := range window * (rounds + 1) {
			mustSend(t, s, fmt.Sprint(i))
		}
		p := a.greet()
		p.reading.Go(func() {
			to := &peer{tb: silent{}, out: p.conn}
			for range rounds {
				_, ids := p.texts(window)
				for _, m := range numbered(t, service.InboxSize) {
					to.send(m)
				}
				to.send(localAck(t, ids...))
			}
		})
		synctest.Wait()
		if texts, _ := p.texts(window); !slices.Equal(texts, []string{"20", "21"}) {
			t.Errorf("the last messages are %q", texts)
		}
		s.Close()
		p.hangUp()
	})
}

// TestUnreceivedWaitAtTheAgent: what a program has not asked for is not taken from the agent, so that it is not lost with
// the program, as long as nothing waits for an acknowledgement.
func TestUnreceivedWaitAtTheAgent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := newAgency(t)
		s := a.open(service.SocketConfig{Version: "7"})
		p := a.greet()
		mustSend(t, s, "not acknowledged")
		p.texts(1)
		messages := numbered(t, 10*service.InboxSize)
		p.push(messages...)
		synctest.Wait()
		s.Close()
		p.hangUp()
		mustReceiveNumbered(t, s, service.InboxSize)
		if m, err := s.Receive(t.Context()); !errors.Is(err, service.ErrClosed) {
			t.Errorf("got %v, %v; want no more than %d messages to be read", m, err, service.InboxSize)
		}
	})
}

// TestInboxFull: there is a limit to what is read for the sake of acknowledgements, and nothing is lost at it.
func TestInboxFull(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const count = service.InboxBytes/service.MaxMessage + 5
		a := newAgency(t)
		s := a.open(service.SocketConfig{Version: "7", MaxKept: 1})
		p := a.greet()
		mustSend(t, s, "first")
		_, ids := p.texts(1)
		large := request(t, strings.Repeat("x", service.MaxMessage-200))
		p.push(append(slices.Repeat([]*fspb.Message{large}, count), localAck(t, ids...))...)
		second := toBackend(t, "second")
		if err := s.Send(t.Context(), second); err != service.ErrInboxFull {
			t.Errorf("Send: error %v, want ErrInboxFull", err)
		}
		if err := s.Flush(t.Context()); !errors.Is(err, service.ErrInboxFull) {
			t.Errorf("Flush: error %v, want ErrInboxFull", err)
		}
		for i := range count {
			if m, err := s.Receive(t.Context()); err != nil || len(textOf(m)) != len(textOf(large)) {
				t.Errorf("message %d is %.100v, %v", i, m, err)
			}
		}
		if err := s.Send(t.Context(), second); err != nil {
			t.Errorf("Send, when all was received: %v", err)
		}
		if texts, _ := p.texts(1); !slices.Equal(texts, []string{"second"}) {
			t.Errorf("sent was %q", texts)
		}
		s.Close()
		p.hangUp()
	})
}

// TestReadingOnIsSlow: the more messages wait for a program that waits for acknowledgements, the slower it is sent others,
// so that it keeps up with a server that is slow to take its answers.
func TestReadingOnIsSlow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const size = 1 << 10
		a := newAgency(t)
		s := a.open(service.SocketConfig{Version: "7"})
		p := a.greet()
		mustSend(t, s, "not acknowledged")
		p.texts(1)
		message := request(t, strings.Repeat("x", size))
		p.push(slices.Repeat([]*fspb.Message{message}, service.InboxBytes/size)...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Flush: error %v, want the deadline", err)
		}
		s.Close()
		p.hangUp()
		count := 0
		for ; ; count++ {
			if _, err := s.Receive(t.Context()); err != nil {
				break
			}
		}
		if count < service.FreeBytes/size/2 || count*size > service.InboxBytes/2 {
			t.Errorf("%d messages of %d bytes were read in a minute", count, size)
		}
	})
}

// TestNewConnectionWhileNobodyReceives: a reader that waits for room does not keep messages from the next connection.
func TestNewConnectionWhileNobodyReceives(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := newAgency(t)
		s := a.open(service.SocketConfig{Version: "7"})
		p := a.greet()
		p.push(numbered(t, 10*service.InboxSize)...)
		synctest.Wait()
		p.hangUp()
		mustSend(t, s, "x")
		p = a.greet()
		texts, ids := p.texts(1)
		if !slices.Equal(texts, []string{"x"}) {
			t.Errorf("on the next connection came %q", texts)
		}
		p.push(localAck(t, ids...))
		if err := s.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		mustReceiveNumbered(t, s, service.InboxSize)
		s.Close()
		p.hangUp()
	})
}
