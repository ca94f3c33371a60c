package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// large is the data of each large message of these tests; an inbox has room for 31 of them.
var large = &anypb.Any{Value: make([]byte, 2<<20)}

const roomForLarge = 31

func offer(t *testing.T, box *inbox, n int, data *anypb.Any) {
	t.Helper()
	for i := range n {
		if room, err := box.offer(newDelivery(&fspb.Message{Data: data}, false)); room != nil || err != nil {
			t.Fatalf("message %d has no room: %v", i, err)
		}
	}
}

func TestInboxIsBounded(t *testing.T) {
	box := newInbox()
	offer(t, box, maxInboxMessages, nil)
	if _, err := box.offer(newDelivery(&fspb.Message{}, false)); !errors.Is(err, errInboxFull) {
		t.Errorf("one more than the bound: %v", err)
	}
	if box.admitted != maxInboxMessages+1 || box.taken != 1 {
		t.Errorf("admitted %d, taken %d: the token of the refused one has to come back", box.admitted, box.taken)
	}
}

// Local messages and those of the server do not take each other's room.
func TestLocalMessagesCountApart(t *testing.T) {
	box := newInbox()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range maxLocalMessages {
		if err := box.put(ended, newDelivery(&fspb.Message{}, true)); err != nil {
			t.Fatalf("local message %d: %v", i, err)
		}
	}
	if err := box.put(ended, newDelivery(&fspb.Message{}, true)); err == nil {
		t.Error("one more than the bound")
	}
	if _, spare := box.account(); spare != grantedTokens {
		t.Errorf("%d tokens are left beside local messages", spare)
	}
	offer(t, box, grantedTokens, nil)
	box = newInbox()
	offer(t, box, roomForLarge, large)
	if err := box.put(ended, newDelivery(&fspb.Message{Data: large}, true)); err != nil {
		t.Errorf("a local one beside many bytes of the server: %v", err)
	}
}

// As bytes fill the inbox up there are fewer tokens, down to none, and none too few when it is empty again.
func TestTokensFollowBytes(t *testing.T) {
	box := newInbox()
	boxes := map[string]*inbox{"a": box}
	var g grant
	expect := func(when string, got map[string]uint64, want uint64) {
		t.Helper()
		if got["a"] != want {
			t.Errorf("%s: %d tokens, want %d", when, got["a"], want)
		}
	}
	take := func(n int) {
		t.Helper()
		for range n {
			if _, _, err := box.take(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	expect("before anything came", g.first(boxes), grantedTokens)
	offer(t, box, 10, large)
	expect("with 90 tokens out", g.next(boxes), 0)
	expect("in a new session", (&grant{}).first(boxes), roomForLarge-10)
	offer(t, box, roomForLarge-10, large)
	expect("full", (&grant{}).first(boxes), 0)
	g = grant{}
	g.first(boxes)
	take(1)
	expect("with room for one", g.next(boxes), 1)
	take(roomForLarge - 1)
	expect("empty", g.next(boxes), roomForLarge-1)
	for range 200 { // small ones
		offer(t, box, 1, nil)
		take(1)
	}
	expect("after many small ones", (&grant{}).first(boxes), grantedTokens)
	offer(t, box, 1, &anypb.Any{Value: make([]byte, maxInboxBytes+1)})
	take(1)
	expect("after one larger than all room", (&grant{}).first(boxes), 1)
}

// deliveries is a router with services, and messages for one of them.
func deliveries(t *testing.T, names ...string) (r *router, client identity.ClientID, boxes map[string]*inbox) {
	t.Helper()
	client = identity.NewClientID()
	reports := &reports{identity: func() identity.ClientID { return client }, wake: func() {}}
	r = newRouter(func() identity.ClientID { return client }, reports)
	for _, name := range names {
		r.attach(name)
	}
	return r, client, r.inboxes()
}

func messagesTo(client identity.ClientID, name string, n int, data *anypb.Any) (out []*fspb.Message) {
	for range n {
		out = append(out, &fspb.Message{
			MessageId:   identity.NewMessageID().Bytes(),
			Destination: &fspb.Address{ClientId: client.Bytes(), ServiceName: name},
			Data:        data,
		})
	}
	return out
}

// What was granted is never dropped: what has no room waits, in order, and the service gets all of it.
func TestGrantedMessagesWaitForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, client, boxes := deliveries(t, "slow")
		sent := messagesTo(client, "slow", grantedTokens, large)
		delivered := make(chan error, 1)
		go func() { delivered <- r.deliver(t.Context(), client, sent) }() // ends with the last of them
		for i := range sent {
			synctest.Wait()
			if got, most := boxes["slow"].depth(), min(roomForLarge, len(sent)-i); got != most {
				t.Fatalf("%d messages are in the inbox, want %d", got, most)
			}
			time.Sleep(roomTimeout / (2 * grantedTokens)) // of the bubble's clock
			d, _, err := boxes["slow"].take(t.Context())
			if err != nil || d.message != sent[i] {
				t.Fatalf("message %d is another one, %v", i, err)
			}
		}
		if err := <-delivered; err != nil {
			t.Errorf("delivery: %v", err)
		}
	})
}

// A service that takes nothing holds up the session for a while only, and its messages then find room when they come again.
func TestHangingServiceEndsTheWait(t *testing.T) { // G-38
	synctest.Test(t, func(t *testing.T) {
		r, client, boxes := deliveries(t, "hangs", "quick")
		sent := messagesTo(client, "hangs", roomForLarge+2, large)
		began := time.Now()
		if err := r.deliver(t.Context(), client, sent); !errors.Is(err, errNoRoom) || time.Since(began) != roomTimeout {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if tokens := (&grant{}).first(boxes); tokens["hangs"] != 0 || tokens["quick"] != grantedTokens {
			t.Errorf("the next session begins with %v", tokens)
		}
		if err := r.deliver(t.Context(), client, messagesTo(client, "quick", 1, nil)); err != nil || boxes["quick"].depth() != 1 {
			t.Errorf("the other service has %d messages, %v", boxes["quick"].depth(), err)
		}
		if _, _, err := boxes["hangs"].take(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := r.deliver(t.Context(), client, sent[roomForLarge:roomForLarge+1]); err != nil || boxes["hangs"].depth() != roomForLarge {
			t.Errorf("again: %d messages, %v", boxes["hangs"].depth(), err)
		}
	})
}

// A service that is removed lets those go that wait for room in its inbox; their messages fail.
func TestRemovalEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, client, _ := deliveries(t, "goes")
		sent := messagesTo(client, "goes", roomForLarge+5, large)
		delivered := make(chan error, 1)
		go func() { delivered <- r.deliver(t.Context(), client, sent) }() // ends with the removal
		synctest.Wait()
		r.detach(t.Context(), "goes")
		if err := <-delivered; err != nil {
			t.Errorf("delivery: %v", err)
		}
		if waiting, _ := r.reports.waiting(); waiting != len(sent) {
			t.Errorf("%d messages have failed, want %d", waiting, len(sent))
		}
	})
}

// The messages of the agent's own records had no part in a session that ended for want of room.
func TestWantOfRoomBlamesNoBatch(t *testing.T) {
	if (ended{established: true, err: fmt.Errorf("service: %w", errNoRoom)}).suspects() {
		t.Error("the batch under way is suspect")
	}
}
