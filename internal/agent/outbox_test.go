package agent

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// noReports has nothing to say.
type noReports struct{}

func (noReports) collect(identity.ClientID) []*fspb.Message { return nil }
func (noReports) waiting() (int, time.Time)                 { return 0, time.Time{} }

func numbered(n byte, p fspb.Message_Priority, size int) *fspb.Message {
	m := &fspb.Message{SourceMessageId: []byte{n}, Priority: p}
	if size > 0 {
		m.Data = &anypb.Any{Value: make([]byte, size)}
	}
	return m
}

func fill(t *testing.T, o *outbox, p fspb.Message_Priority, numbers ...byte) {
	t.Helper()
	for _, n := range numbers {
		if err := o.send(t.Context(), numbered(n, p, 0), nil); err != nil {
			t.Fatal(err)
		}
	}
}

func contents(t *testing.T, b *batch) []byte {
	t.Helper()
	if b == nil {
		return nil
	}
	var out []byte
	for _, p := range b.parcels {
		m := &fspb.Message{}
		if err := proto.Unmarshal(p.raw, m); err != nil {
			t.Fatal(err)
		}
		out = append(out, m.SourceMessageId...)
	}
	return out
}

func takeAll(o *outbox) *batch { return o.take(identity.ClientID{}, maxBatchBytes) }

func TestOutboxOrder(t *testing.T) {
	o := newOutbox(noReports{}, nil)
	fill(t, o, fspb.Message_LOW, 1)
	fill(t, o, fspb.Message_MEDIUM, 2)
	fill(t, o, fspb.Message_HIGH, 3)
	fill(t, o, fspb.Message_Priority(77), 4) // unknown counts as medium
	fill(t, o, fspb.Message_HIGH, 5)
	if got, want := contents(t, takeAll(o)), []byte{3, 5, 2, 4, 1}; !bytes.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if b := takeAll(o); b != nil {
		t.Errorf("a second batch has %v", contents(t, b))
	}
}

// Whatever comes back and in which order, nothing overtakes within a priority.
func TestGivenBackMessagesKeepTheirOrder(t *testing.T) {
	o := newOutbox(noReports{}, nil)
	var batches []*batch
	for n := byte(0); n < 30; n += 10 {
		for i := range byte(10) {
			fill(t, o, fspb.Message_MEDIUM, n+i)
		}
		batches = append(batches, takeAll(o))
	}
	fill(t, o, fspb.Message_MEDIUM, 30)
	batches[1].giveBack()
	batches[2].blame()
	batches[0].giveBack()
	var got []byte
	for b := takeAll(o); b != nil; b = takeAll(o) {
		got = append(got, contents(t, b)...)
		b.accept()
	}
	if len(got) != 31 || !slices.IsSorted(got) {
		t.Errorf("got %v", got)
	}
}

func TestOutboxBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox(noReports{}, nil)
		for i := range byte(maxClassMessages) {
			fill(t, o, fspb.Message_MEDIUM, i)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := o.send(ctx, numbered(1, fspb.Message_MEDIUM, 0), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("message %d: %v", maxClassMessages+1, err)
		}
		fill(t, o, fspb.Message_HIGH, 1) // another class has room
		b := takeAll(o)
		if err := o.send(ctx, numbered(1, fspb.Message_MEDIUM, 0), nil); err == nil {
			t.Error("messages in flight do not count")
		}
		sent := make(chan error, 1)
		go func() { sent <- o.send(t.Context(), numbered(2, fspb.Message_MEDIUM, 0), nil) }()
		synctest.Wait()
		b.accept()
		if err := <-sent; err != nil {
			t.Errorf("after the batch was accepted: %v", err)
		}
	})
}

func TestOutboxBoundInBytes(t *testing.T) {
	o := newOutbox(noReports{}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	admitted := 0
	for range 20 {
		if err := o.send(ctx, numbered(0, fspb.Message_LOW, 2<<20), nil); err != nil {
			break
		}
		admitted++
	}
	if admitted != 10 {
		t.Errorf("%d messages of 2 MiB were admitted, want those that reach 20 MiB", admitted)
	}
	b := takeAll(o)
	if len(b.parcels) != 4 || b.bytes < maxBatchBytes {
		t.Errorf("a batch has %d messages of 2 MiB, want those that reach 7.5 MiB", len(b.parcels))
	}
}

func TestOversizedMessageIsRefused(t *testing.T) { // G-16
	o := newOutbox(noReports{}, nil)
	if err := o.send(t.Context(), numbered(0, fspb.Message_HIGH, MaxMessageSize), nil); !errors.Is(err, ErrMessageTooLarge) {
		t.Errorf("got %v", err)
	}
	if s := o.stats(); s.Messages != 0 {
		t.Errorf("%d messages are held", s.Messages)
	}
}

func TestAcceptedIsCalledOnce(t *testing.T) {
	o := newOutbox(noReports{}, nil)
	calls := 0
	if err := o.send(t.Context(), numbered(1, fspb.Message_HIGH, 0), func() { calls++ }); err != nil {
		t.Fatal(err)
	}
	takeAll(o).giveBack()
	if calls != 0 {
		t.Error("called for a batch that came back")
	}
	takeAll(o).accept()
	if calls != 1 {
		t.Errorf("called %d times", calls)
	}
}

// A message that ends every contact is found, set aside, and does not stop the others.
func TestPoisonousMessageIsSetAside(t *testing.T) { // G-16
	o := newOutbox(noReports{}, nil)
	now := time.Now()
	o.now = func() time.Time { return now }
	const poison = 13
	for i := range byte(40) {
		fill(t, o, fspb.Message_MEDIUM, i)
	}
	var got []byte
	contacts := 0
	for o.stats().Aside == 0 || o.stats().Waiting > 0 {
		if contacts++; contacts > 100 {
			t.Fatal("no end of contacts")
		}
		b := o.open(identity.ClientID{}, maxBatchBytes)
		switch {
		case b == nil:
			o.opened() // an empty contact succeeds
		case slices.Contains(contents(t, b), poison):
			b.blame()
		default:
			got = append(got, contents(t, b)...)
			b.accept()
			o.opened()
		}
	}
	if len(got) != 39 || !slices.IsSorted(got) {
		t.Errorf("got %v", got)
	}
	if s := o.stats(); s.Aside != 1 || s.Messages != 1 {
		t.Errorf("held are %+v", s)
	}
	fill(t, o, fspb.Message_MEDIUM, 40)
	takeAll(o).accept()
	now = now.Add(asideDelay)
	b := takeAll(o)
	if got := contents(t, b); !bytes.Equal(got, []byte{poison}) {
		t.Fatalf("after a while came %v", got)
	}
	b.accept()
	if s := o.stats(); s.Messages != 0 {
		t.Errorf("held are %+v", s)
	}
}

// A server that fails with everything gives no reason to change the order of messages.
func TestFailingServerConvictsNobody(t *testing.T) {
	o := newOutbox(noReports{}, nil)
	fill(t, o, fspb.Message_MEDIUM, 1, 2, 3)
	empty := 0
	for range 50 {
		if b := o.open(identity.ClientID{}, maxBatchBytes); b != nil {
			b.blame()
		} else {
			empty++
		}
	}
	if s := o.stats(); empty == 0 || s.Aside != 0 || s.Waiting != 3 {
		t.Errorf("after %d empty contacts, held are %+v", empty, s)
	}
	o.opened()
	var got []byte
	for b := o.open(identity.ClientID{}, maxBatchBytes); b != nil; b = takeAll(o) {
		got = append(got, contents(t, b)...)
		b.accept()
	}
	if !bytes.Equal(got, []byte{1, 2, 3}) {
		t.Errorf("got %v", got)
	}
}

func TestClosedOutbox(t *testing.T) { // G-56
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox(noReports{}, nil)
		for i := range byte(maxClassMessages) {
			fill(t, o, fspb.Message_MEDIUM, i)
		}
		sent := make(chan error, 1)
		go func() { sent <- o.send(t.Context(), numbered(1, fspb.Message_MEDIUM, 0), nil) }()
		synctest.Wait()
		o.close()
		if err := <-sent; !errors.Is(err, errOutboxClosed) {
			t.Errorf("the blocked sender got %v", err)
		}
		select {
		case <-o.idle:
			t.Error("idle with 100 messages")
		default:
		}
		takeAll(o).accept()
		<-o.idle
	})
}

func TestReportsShareMessages(t *testing.T) {
	id := identity.NewClientID()
	woken := 0
	r := &reports{
		identity: func() identity.ClientID { return id },
		info:     func() *fspb.ClientInfoData { return &fspb.ClientInfoData{} },
		wake:     func() { woken++ },
	}
	for range maxAcksPerMessage + 1 {
		if err := r.ack(t.Context(), identity.NewMessageID()); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.fail(t.Context(), identity.NewMessageID(), "no\xff"); err != nil {
		t.Fatal(err)
	}
	r.announce()
	if n, since := r.waiting(); n != 4 || since.IsZero() || woken == 0 {
		t.Errorf("waiting: %d since %v", n, since)
	}
	if old := r.collect(identity.NewClientID()); len(old) != 3 {
		t.Errorf("for another identity: %d messages, want acks and the error", len(old))
	}
	if got := r.collect(id); len(got) != 1 || got[0].MessageType != typeClientInfo {
		t.Errorf("for the identity: %v", got)
	}
	if n, since := r.waiting(); n != 0 || !since.IsZero() {
		t.Errorf("waiting: %d since %v", n, since)
	}
}

func TestReportsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reports{identity: func() identity.ClientID { return identity.ClientID{} }, wake: func() {}}
		for range maxWaitingOutcomes {
			if err := r.ack(t.Context(), identity.NewMessageID()); err != nil {
				t.Fatal(err)
			}
		}
		done := make(chan error, 1)
		go func() { done <- r.ack(t.Context(), identity.NewMessageID()) }()
		synctest.Wait()
		select {
		case <-done:
			t.Error("one more than the bound")
		default:
		}
		r.collect(identity.NewClientID())
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
