//go:build unix

package service_test

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/farspeak/farspeak/internal/agent/service"
	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
)

// TestMain runs the tests, or one of the children that they start: processes of the test program itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == childFlag {
		os.Exit(runChild(os.Args[2], os.Args[3:]))
	}
	// With the race detector a child would otherwise take a second to end.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// desk is a host that keeps what a service sends, and can be full.
type desk struct {
	mu      sync.Mutex
	sent    []*fspb.Message
	acks    []func() // of sent messages that the server does not have yet
	manual  bool     // the test says when the server has a message
	full    bool
	refuse  func(*fspb.Message) error // nil: nothing is refused
	reports []proto.Message
	changed chan struct{} // closed and replaced with each change
}

func newDesk() *desk { return &desk{changed: make(chan struct{})} }

func (*desk) ClientID() identity.ClientID { return identity.ClientID{0, 1, 2, 3, 4, 5, 6, 7} }

func (d *desk) Send(ctx context.Context, m *fspb.Message, accepted func()) error {
	if len(m.GetDestination().GetClientId()) > 0 {
		accepted = nil // the server never has it
	}
	if d.refuse != nil {
		if err := d.refuse(m); err != nil {
			return err
		}
	}
	return d.put(ctx, func() {
		d.sent = append(d.sent, m)
		switch {
		case accepted == nil:
		case d.manual:
			d.acks = append(d.acks, accepted)
		default:
			accepted()
		}
	})
}

func (d *desk) Report(ctx context.Context, _ string, data proto.Message) error {
	return d.put(ctx, func() { d.reports = append(d.reports, data) })
}

func (d *desk) put(ctx context.Context, add func()) error {
	for {
		d.mu.Lock()
		changed := d.changed
		if !d.full {
			add()
			d.announceLocked()
			d.mu.Unlock()
			return nil
		}
		d.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *desk) announceLocked() {
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *desk) setFull(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
	d.announceLocked()
}

// acceptAll has the server accept what was sent.
func (d *desk) acceptAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, accepted := range d.acks {
		accepted()
	}
	d.acks = nil
}

// await waits until what the desk has satisfies a condition, which is called with the desk locked.
func (d *desk) await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		d.mu.Lock()
		changed, done := d.changed, condition()
		d.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			t.Fatalf("%s: not within %v; %d messages came", what, patience, len(d.messages()))
		}
	}
}

func (d *desk) messages() []*fspb.Message {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]*fspb.Message(nil), d.sent...)
}

// next waits for the n-th message that was sent, counted from 0.
func (d *desk) next(t *testing.T, n int) *fspb.Message {
	t.Helper()
	d.await(t, "message", func() bool { return len(d.sent) > n })
	return d.messages()[n]
}

// find returns the first message of a type that satisfies a condition, and waits for it.
func (d *desk) find(t *testing.T, kind string) *fspb.Message {
	t.Helper()
	var found *fspb.Message
	d.await(t, "message of type "+kind, func() bool {
		for _, m := range d.sent {
			if m.MessageType == kind {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

// usage returns the reports on resource usage for which a condition holds.
func (d *desk) usageLocked(condition func(*monitoringpb.ResourceUsageData) bool) []*monitoringpb.ResourceUsageData {
	var out []*monitoringpb.ResourceUsageData
	for _, r := range d.reports {
		if data, ok := r.(*monitoringpb.ResourceUsageData); ok && condition(data) {
			out = append(out, data)
		}
	}
	return out
}

func (d *desk) killsLocked() []*monitoringpb.KillNotification {
	var out []*monitoringpb.KillNotification
	for _, r := range d.reports {
		if data, ok := r.(*monitoringpb.KillNotification); ok {
			out = append(out, data)
		}
	}
	return out
}

// textMessage is a message with a text as its payload.
func textMessage(t *testing.T, kind, text string) *fspb.Message {
	t.Helper()
	return &fspb.Message{
		Source:      &fspb.Address{ServiceName: "backend"},
		Destination: &fspb.Address{ServiceName: "walrus"},
		MessageType: kind,
		Data:        pack(t, wrapperspb.String(text)),
	}
}

func textOf(t *testing.T, m *fspb.Message) string {
	t.Helper()
	text := &wrapperspb.StringValue{}
	if err := m.GetData().UnmarshalTo(text); err != nil {
		t.Fatal(err)
	}
	return text.Value
}

// padded is a message of exactly so many bytes.
func padded(t *testing.T, kind string, size int) *fspb.Message {
	t.Helper()
	m := textMessage(t, kind, "")
	m.Data = &anypb.Any{TypeUrl: "x"}
	for range 8 { // the lengths of lengths need a few rounds
		m.Data.Value = make([]byte, len(m.Data.Value)+size-proto.Size(m))
		if proto.Size(m) == size {
			return m
		}
	}
	t.Fatalf("no message of %d bytes", size)
	return nil
}

func durationOf(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

func stop(t *testing.T, svc service.Service) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	svc.Stop(ctx)
	if ctx.Err() != nil {
		t.Error("the service does not stop")
	}
}
