package service_test

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/farspeak/farspeak/sdk/service"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// TestDaemonSpeaksFirst: all that a service says at first is on its way before it has read anything.
func TestDaemonSpeaksFirst(t *testing.T) {
	p, in, out, hangUp := pipes(t)
	var opening sync.WaitGroup
	opening.Go(func() {
		d, err := service.OpenDaemon(t.Context(), service.DaemonConfig{Version: "0.5", In: in, Out: out})
		if err != nil {
			t.Error(err)
			return
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	p.expectMagic()
	p.expect(startupFrame(t, int64(os.Getpid()), "0.5"))
	p.sendMagic()
	opening.Wait()
	if _, err := p.receive(); err != io.EOF {
		t.Errorf("error %v at the end, want io.EOF", err)
	}
	hangUp()
}

func TestStartupFrameOfTheDescription(t *testing.T) {
	want := "56000000" +
		"2208120673797374656d2a0b53746172747570446174613a3d0a32747970652e676f6f676c65617069732e636f6d2f666c656574737065616b2e6368616e6e656c2e53746172747570446174611207082a1203302e35" +
		"0110eef1"
	if got := hex.EncodeToString(startupFrame(t, 42, "0.5")); got != want {
		t.Errorf("the peer expects %s, want %s", got, want)
	}
}

func TestDaemonExchangesMessages(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d, p, hangUp := openDaemon(t, service.DaemonConfig{Version: "1"})
		var serving sync.WaitGroup
		serving.Go(func() {
			if err := service.Serve(t.Context(), d, answerText); err != nil {
				t.Error(err)
			}
		})
		for _, text := range []string{"a", "no answer", "b", strings.Repeat("x", 2<<20-200)} {
			p.send(request(t, text))
			if text == "no answer" {
				continue
			}
			m := p.mustReceive()
			if textOf(m) != text || m.Destination.GetServiceName() != "backend" || len(m.Destination.ClientId) != 0 || m.MessageType != "TextResponse" {
				t.Errorf("to %.10q came %.100v", text, m)
			}
		}
		hangUp()
		serving.Wait()
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestMessageIsOneWrite: an agent that got a message must not wait for its magic.
func TestMessageIsOneWrite(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d, p, hangUp := openDaemon(t, service.DaemonConfig{})
		defer d.Close()
		defer hangUp()
		var sending sync.WaitGroup
		sending.Go(func() {
			if err := d.Heartbeat(t.Context()); err != nil {
				t.Error(err)
			}
		})
		b := make([]byte, 1000)
		n, err := p.in.Read(b) // a net.Pipe joins no writes
		if err != nil || hex.EncodeToString(b[:n]) != "150000002208120673797374656d2a094865617274626561740110eef1" {
			t.Errorf("first read: %x, %v; want a heartbeat with its magic", b[:n], err)
		}
		sending.Wait()
	})
}

func TestAutomaticHeartbeats(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d, p, hangUp := openDaemon(t, service.DaemonConfig{Heartbeat: 10 * time.Second})
		defer d.Close()
		defer hangUp()
		begin := time.Now()
		expect := func(kind string, at time.Duration) {
			t.Helper()
			if m := p.mustReceive(); m.MessageType != kind || time.Since(begin) != at {
				t.Errorf("%s after %v, want %s after %v", m.MessageType, time.Since(begin), kind, at)
			}
		}
		expect("Heartbeat", 10*time.Second)
		expect("Heartbeat", 20*time.Second)
		time.Sleep(5 * time.Second)
		var sending sync.WaitGroup
		sending.Go(func() {
			if err := d.Send(t.Context(), toBackend(t, "x")); err != nil {
				t.Error(err)
			}
		})
		expect("Text", 25*time.Second)
		sending.Wait()
		expect("Heartbeat", 35*time.Second) // every message is one
	})
}

func TestNoHeartbeatsUnlessAsked(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d, p, hangUp := openDaemon(t, service.DaemonConfig{})
		timer := time.AfterFunc(time.Hour, hangUp)
		defer timer.Stop()
		if m, err := p.receive(); err == nil {
			t.Errorf("got %v, want silence", m)
		}
		d.Close()
	})
}

func TestDaemonRefusesToSend(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d, p, hangUp := openDaemon(t, service.DaemonConfig{})
		defer hangUp()
		large := toBackend(t, strings.Repeat("x", service.MaxMessage))
		system := toBackend(t, "")
		system.Destination.ServiceName = "system"
		for name, c := range map[string]struct {
			m    *fspb.Message
			want string
		}{
			"nil":            {nil, "no destination"},
			"no destination": {&fspb.Message{}, "no destination"},
			"to the agent":   {system, "belongs to the agent"},
			"too large":      {large, "too large"},
			"no text":        {&fspb.Message{Destination: &fspb.Address{ServiceName: "\xff"}}, "UTF-8"},
		} {
			if err := d.Send(t.Context(), c.m); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: error %v, want %q", name, err, c.want)
			}
		}
		if err := d.Send(t.Context(), large); !errors.Is(err, service.ErrTooLarge) {
			t.Errorf("error %v, want ErrTooLarge", err)
		}
		var sending sync.WaitGroup
		sending.Go(func() {
			if err := d.Send(t.Context(), toBackend(t, "good")); err != nil {
				t.Error(err)
			}
		})
		if m := p.mustReceive(); textOf(m) != "good" {
			t.Errorf("the first message is %v, want the good one", m)
		}
		sending.Wait()
		d.Close()
	})
}

// TestSendGivesUpWaiting: a context that ends leaves the connection as it is, in the middle of a message too.
func TestSendGivesUpWaiting(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d, p, hangUp := openDaemon(t, service.DaemonConfig{})
		defer hangUp()
		for _, text := range []string{"first", "second"} { // the first is being written, the second waits for it
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if err := d.Send(ctx, toBackend(t, text)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: error %v, want the deadline: nobody reads", text, err)
			}
			cancel()
		}
		var sending sync.WaitGroup
		sending.Go(func() {
			if err := d.Send(t.Context(), toBackend(t, "third")); err != nil {
				t.Error(err)
			}
		})
		for _, want := range []string{"first", "third"} {
			if got := textOf(p.mustReceive()); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		sending.Wait()
		d.Close()
	})
}

func TestReceiveGivesUpWaiting(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d, p, hangUp := openDaemon(t, service.DaemonConfig{})
		defer hangUp()
		defer d.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := d.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the deadline", err)
		}
		var sending sync.WaitGroup
		defer sending.Wait()
		sending.Go(func() { p.send(request(t, "late")) })
		if m, err := d.Receive(t.Context()); err != nil || textOf(m) != "late" {
			t.Errorf("got %v, %v; want the message", m, err)
		}
	})
}
