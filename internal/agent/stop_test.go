package agent_test

import (
	"context"
	"testing"
	"time"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// What is in the outbox leaves at an orderly stop.
func TestFarewell(t *testing.T) { // G-11, G-57
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "echo")
	n := s.open()
	r.send("echo", 1, fspb.Message_MEDIUM)
	receive(t, n.records, "record 1") // under way, so that the rest waits
	for i := byte(2); i < 100; i++ {
		r.send("echo", i, fspb.Message_MEDIUM)
	}
	r.stop()
	closed(t, r.probe("echo").stopped, "the stop of the service")
	n.ack(1)
	if got := numbers(receive(t, n.records, "record 2")); len(got) != 98 {
		t.Errorf("%d messages in the last record", len(got))
	}
	n.ack(2)
	if err := r.exit(); err != nil {
		t.Errorf("ended with %v", err)
	}
	for range n.records { // up to the end of the body
	}
	if n.readErr != nil {
		t.Errorf("the session ended with %v", n.readErr)
	}
}

// With a full outbox, a sender blocked on it and a server that says nothing, the stop is still in time.
func TestStopHasADeadline(t *testing.T) { // G-56
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, nil, "echo")
	s.open()
	for i := range byte(100) {
		r.send("echo", i, fspb.Message_MEDIUM)
	}
	p := r.probe("echo")
	blocked := make(chan error, 1)
	go func() { // ends with the agent
		m := &fspb.Message{Destination: &fspb.Address{ServiceName: "sink"}}
		blocked <- p.spec.Host.Send(context.WithoutCancel(t.Context()), m, nil)
	}()
	nothing(t, blocked, 100*time.Millisecond, "the end of a send to a full outbox")
	began := time.Now()
	r.stop()
	if err := r.exit(); err != nil {
		t.Errorf("ended with %v", err)
	}
	if took := time.Since(began); took > 9*time.Second {
		t.Errorf("the stop took %v", took)
	}
	if err := receive(t, blocked, "the end of the send"); err == nil {
		t.Error("a message was taken that is lost")
	}
}
