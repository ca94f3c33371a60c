package service_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/farspeak/farspeak/sdk/service"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

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
