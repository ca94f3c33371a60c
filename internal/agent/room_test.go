package agent_test

import (
	"bytes"
	"context"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// More bytes than an inbox has room for, all of them granted, hold up a session and do not break it: each message arrives,
// in order, and whoever was behind them too.
func TestBytesWithoutRoomHoldUpTheSession(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "quick")
	n := s.open() // after which the service quick is there
	release := make(chan struct{})
	r.mu.Lock()
	r.process = func(context.Context, *fspb.Message) error { <-release; return nil }
	r.mu.Unlock()
	if err := r.agent.Install(t.Context(), installation("slow")); err != nil {
		t.Fatal(err)
	}
	records := n.ackAll()
	large := wrapperspb.Bytes(make([]byte, 2<<20))
	var ids [][]byte
	pushed := make(chan struct{})
	go func() { // ends when the agent reads on
		defer close(pushed)
		for range 36 {
			m := to(n, "slow", "large", large)
			ids = append(ids, m.MessageId)
			n.push(m)
		}
		n.push(to(n, "quick", "behind them", nil))
	}()
	// One is being processed, 31 fill the inbox; what follows waits outside, and holds up the other service.
	waitUntil(t, func() bool {
		for _, service := range r.agent.Status().Services {
			if service.Name == "slow" {
				return service.Queued == 31
			}
		}
		return false
	})
	if got := len(r.probe("quick").messages); got != 0 {
		t.Errorf("%d messages overtook", got)
	}
	close(release)
	closed(t, pushed, "the end of the messages")
	receive(t, r.probe("quick").messages, "the message behind them")
	for i, id := range ids {
		if got := receive(t, r.probe("slow").messages, "a large message"); !bytes.Equal(got.MessageId, id) {
			t.Errorf("message %d is another one", i)
		}
	}
	select {
	case _, open := <-records:
		if !open {
			t.Error("the session has ended")
		}
	default:
	}
}
