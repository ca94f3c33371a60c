package service_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/farspeak/farspeak/sdk/service"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// pipes connects a peer with what becomes the two ends of a Daemon.
func pipes(t *testing.T) (p *peer, in, out net.Conn, hangUp func()) {
	t.Helper()
	in, toIn := net.Pipe()
	fromOut, out := net.Pipe()
	hangUp = func() {
		toIn.Close()
		fromOut.Close()
	}
	return &peer{tb: t, in: fromOut, out: toIn}, in, out, hangUp
}

// openDaemon opens a Daemon on a connection whose other side has a peer, which has greeted it.
func openDaemon(t *testing.T, cfg service.DaemonConfig) (*service.Daemon, *peer, func()) {
	t.Helper()
	p, in, out, hangUp := pipes(t)
	cfg.In, cfg.Out = in, out
	var greeting sync.WaitGroup
	greeting.Go(func() { p.greet(cfg.Version) })
	d, err := service.OpenDaemon(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	greeting.Wait()
	return d, p, hangUp
}

// inBubble runs a test whose time is its own.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

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

// answerText sends a text back.
func answerText(_ context.Context, m *fspb.Message) (*fspb.Message, error) {
	if textOf(m) == "no answer" {
		return nil, nil
	}
	answer, err := service.Reply(m, m.MessageType+"Response", m.Data)
	if err != nil {
		return nil, err
	}
	answer.Data = m.Data
	return answer, nil
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

func TestAgentLeaves(t *testing.T) {
	whole := hexFrame
	for name, c := range map[string]struct {
		sent string
		want func(error) bool
	}{
		"between messages":       {"", func(err error) bool { return err == io.EOF }},
		"after a message":        {whole, func(err error) bool { return err == io.EOF }},
		"in a size":              {"15", isCut},
		"in a message":           {whole[:20], isCut},
		"before the magic":       {whole[:len(whole)-8], isCut},
		"with another magic":     {whole[:len(whole)-8] + "00000000" + whole, func(err error) bool { return strings.Contains(err.Error(), "wrong magic") }},
		"with too large a size":  {"01002000", func(err error) bool { return errors.Is(err, service.ErrTooLarge) }},
		"with bytes, no message": {"02000000ffff0110eef1", func(err error) bool { return strings.Contains(err.Error(), "malformed") }},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				d, p, hangUp := openDaemon(t, service.DaemonConfig{})
				var sending sync.WaitGroup
				sending.Go(func() {
					b, err := hex.DecodeString(c.sent)
					if err != nil {
						t.Error(err)
					}
					p.out.Write(b) // a service that has seen enough takes no more
					hangUp()
				})
				_, err := d.Receive(t.Context())
				for err == nil {
					_, err = d.Receive(t.Context())
				}
				if !c.want(err) {
					t.Errorf("error %v", err)
				}
				if _, again := d.Receive(t.Context()); again != err {
					t.Errorf("error %v after %v", again, err)
				}
				d.Close()
				sending.Wait()
			})
		})
	}
}

// hexFrame is a message that is good for nothing.
const hexFrame = "150000002208120673797374656d2a094865617274626561740110eef1"

func isCut(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }

func TestAgentThatStalls(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d, p, hangUp := openDaemon(t, service.DaemonConfig{})
		defer hangUp()
		defer d.Close()
		time.Sleep(time.Hour) // between messages it may take its time
		begin := time.Now()
		p.write([]byte{0x15, 0, 0, 0, 0x22})
		_, err := d.Receive(t.Context())
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != 5*time.Minute {
			t.Errorf("error %v after %v, want the deadline after five minutes", err, time.Since(begin))
		}
	})
}

func TestAgentThatIsNone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p, in, out, hangUp := pipes(t)
		var talking sync.WaitGroup
		talking.Go(func() { io.Copy(io.Discard, p.in) })
		talking.Go(func() { p.out.Write([]byte("HTTP/1.1 400 Bad Request\r\n")) })
		_, err := service.OpenDaemon(t.Context(), service.DaemonConfig{In: in, Out: out})
		if err == nil || !strings.Contains(err.Error(), "wrong magic") {
			t.Errorf("error %v, want the wrong magic", err)
		}
		hangUp()
		talking.Wait()
	})
}

func TestOpenDaemonGivesUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for _, silent := range []bool{true, false} { // an agent that never answers, one that leaves
			_, in, out, hangUp := pipes(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if !silent {
				hangUp()
			}
			_, err := service.OpenDaemon(ctx, service.DaemonConfig{In: in, Out: out})
			want := io.ErrUnexpectedEOF
			if silent {
				want = context.DeadlineExceeded
			}
			if !errors.Is(err, want) {
				t.Errorf("error %v, want %v", err, want)
			}
			hangUp()
		}
	})
}

// TestCloseDoesNotCutAMessage: what is being written when Close is called arrives, if the agent reads.
func TestCloseDoesNotCutAMessage(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d, p, hangUp := openDaemon(t, service.DaemonConfig{})
		defer hangUp()
		var working sync.WaitGroup
		working.Go(func() {
			if err := d.Send(t.Context(), toBackend(t, "last")); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait() // it is being written
		working.Go(func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if m := p.mustReceive(); textOf(m) != "last" {
			t.Errorf("got %v", m)
		}
		if _, err := p.receive(); err != io.EOF {
			t.Errorf("error %v, want io.EOF", err)
		}
		working.Wait()
		if err := d.Send(t.Context(), toBackend(t, "x")); !errors.Is(err, service.ErrClosed) {
			t.Errorf("Send after Close: %v", err)
		}
		if _, err := d.Receive(t.Context()); !errors.Is(err, service.ErrClosed) {
			t.Errorf("Receive after Close: %v", err)
		}
		if err := d.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
}

// TestCloseIsBounded: an agent that does not read holds nobody.
func TestCloseIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d, _, hangUp := openDaemon(t, service.DaemonConfig{})
		defer hangUp()
		var sending sync.WaitGroup
		sending.Go(func() {
			if err := d.Send(t.Context(), toBackend(t, "never")); err == nil {
				t.Error("a message was sent that nobody read")
			}
		})
		synctest.Wait()
		begin := time.Now()
		d.Close()
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("Close took %v", took)
		}
		sending.Wait()
	})
}

func TestServe(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d, p, hangUp := openDaemon(t, service.DaemonConfig{})
		defer hangUp()
		defer d.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := service.Serve(ctx, d, answerText); err != nil {
			t.Errorf("error %v at the end of the context, want none", err)
		}
		var sending sync.WaitGroup
		sending.Go(func() { p.send(request(t, "x")) })
		broken := errors.New("broken")
		err := service.Serve(t.Context(), d, func(context.Context, *fspb.Message) (*fspb.Message, error) { return nil, broken })
		if !errors.Is(err, broken) {
			t.Errorf("error %v, want the handler's", err)
		}
		sending.Wait()
	})
}

func TestReplyNeedsASender(t *testing.T) {
	if _, err := service.Reply(&fspb.Message{}, "x", nil); err == nil {
		t.Error("a reply to nobody")
	}
	m, err := service.Reply(request(t, "x"), "Answer", nil)
	if err != nil || m.Destination.ServiceName != "backend" || len(m.Destination.ClientId) != 0 || m.Data != nil {
		t.Errorf("reply %v, %v", m, err)
	}
}

func TestEnvironmentIsChecked(t *testing.T) {
	for name, c := range map[string]struct{ in, out, want string }{
		"none":         {"", "", "FLEETSPEAK_COMMS_CHANNEL_INFD is not set"},
		"one":          {"3", "", "FLEETSPEAK_COMMS_CHANNEL_OUTFD is not set"},
		"no number":    {"3", "four", "FLEETSPEAK_COMMS_CHANNEL_OUTFD"},
		"negative":     {"-1", "4", "FLEETSPEAK_COMMS_CHANNEL_INFD"},
		"the same":     {"4", "4", "both 4"},
		"not open":     {"100001", "100002", "100001"},
		"out of range": {"99999999999999999999", "4", "FLEETSPEAK_COMMS_CHANNEL_INFD"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("FLEETSPEAK_COMMS_CHANNEL_INFD", c.in)
			t.Setenv("FLEETSPEAK_COMMS_CHANNEL_OUTFD", c.out)
			_, err := service.OpenDaemon(t.Context(), service.DaemonConfig{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	if _, err := service.OpenDaemon(t.Context(), service.DaemonConfig{In: io.NopCloser(&bytes.Buffer{})}); err == nil {
		t.Error("In without Out was taken")
	}
}
