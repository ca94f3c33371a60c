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
	"testing/synctest"
	"time"

	"github.com/farspeak/farspeak/sdk/service"
)

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
