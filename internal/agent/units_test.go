package agent

import (
	"io"
	"maps"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

func TestGrant(t *testing.T) { // G-24
	a, b := newInbox(), newInbox()
	boxes := map[string]*inbox{"a": a}
	offer := func(box *inbox, n int) {
		for range n {
			_, _ = box.offer(newDelivery(&fspb.Message{}, false)) // those above the bound are refused
		}
	}
	takeFrom := func(box *inbox, n int) {
		for range n {
			if _, _, err := box.take(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	var g grant
	expect := func(got, want map[string]uint64) {
		t.Helper()
		if !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	offer(a, 10)
	takeFrom(a, 4)
	expect(g.first(boxes), map[string]uint64{"a": 94})
	takeFrom(a, 6)
	expect(g.next(boxes), map[string]uint64{"a": 6})
	offer(b, 3)
	boxes["b"] = b
	expect(g.next(boxes), map[string]uint64{"a": 0, "b": 97})

	delete(boxes, "a") // gone and back
	expect(g.next(boxes), map[string]uint64{"b": 0})
	boxes["a"] = a
	offer(a, 2)
	takeFrom(a, 2)
	if err := a.put(t.Context(), newDelivery(&fspb.Message{}, true)); err != nil {
		t.Fatal(err)
	}
	takeFrom(a, 1) // a local message costs no token
	expect(g.next(boxes), map[string]uint64{"a": 2, "b": 0})

	offer(a, 300) // more than granted
	expect((&grant{}).first(boxes), map[string]uint64{"a": 0, "b": 97})
}

func TestSeenForgetsTheOldest(t *testing.T) {
	s := newSeen()
	first := identity.NewMessageID()
	s.set(first, outcome{state: outcomePending})
	for range maxSeen - 1 {
		s.set(identity.NewMessageID(), outcome{})
	}
	s.set(first, outcome{state: outcomeFailed, text: "news"})
	s.set(identity.NewMessageID(), outcome{})
	if o, known := s.find(first); !known || o.text != "news" {
		t.Errorf("the one with news is %v, %t", o, known)
	}
	if len(s.byID) != maxSeen || s.order.Len() != maxSeen {
		t.Errorf("%d are remembered", len(s.byID))
	}
	s.forget(first)
	if _, known := s.find(first); known {
		t.Error("the forgotten one is known")
	}
	s.set(first, outcome{state: outcomeFailed, text: strings.Repeat("x", 1<<20)})
	if o, _ := s.find(first); len(o.text) != maxSeenText {
		t.Errorf("%d bytes of a text are remembered", len(o.text))
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                              0,
		"120":                           2 * time.Minute,
		"0":                             0,
		"-5":                            0,
		"soon":                          0,
		"99999999999999999999":          0,
		"1000000":                       maxRetryAfter,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute,
		"Fri, 02 Jan 2026 03:00:00 GMT": 0,
		"Fri, 02 Jan 2099 03:00:00 GMT": maxRetryAfter,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

func TestBackoffHasFullJitter(t *testing.T) {
	const limit = time.Minute
	b := newBackoff(limit)
	bound := firstFailureDelay
	for range 20 {
		if d := b.NextBackOff(); d < 0 || d > bound+1 {
			t.Errorf("%v, the bound is %v", d, bound)
		}
		bound = min(bound*3/2, limit)
	}
	low, high := limit, time.Duration(0)
	for range 1000 {
		d := b.NextBackOff()
		low, high = min(low, d), max(high, d)
	}
	if low > limit/10 || high < limit*9/10 || high > limit+1 {
		t.Errorf("between %v and %v, want all of 0 to %v", low, high, limit)
	}
	if d := newBackoff(-5 * time.Second).NextBackOff(); d < 0 || d > firstFailureDelay {
		t.Errorf("with a negative limit: %v", d)
	}
}

func TestEndpoints(t *testing.T) {
	first := map[string]bool{}
	for range 200 {
		first[newEndpoints([]string{"a", "b", "c"}).list[0].address] = true
	}
	if len(first) != 3 {
		t.Errorf("first ones are %v, want all", first)
	}
	e := newEndpoints([]string{"a", "b", "c"})
	good := e.list[2]
	e.prefer(good)
	for range 20 {
		e.shuffleLocked()
		if e.list[0] != good {
			t.Fatal("the good one is not tried first")
		}
	}
	now := time.Now()
	e.postpone(good, now.Add(time.Minute))
	if ready := e.ready(now); len(ready) != 2 || ready[0] == good || ready[1] == good {
		t.Errorf("ready are %v", ready)
	}
	if d := e.nextReady(now); d != 0 {
		t.Errorf("next ready in %v", d)
	}
	for _, p := range e.list {
		e.postpone(p, now.Add(time.Hour))
	}
	e.postpone(good, now.Add(time.Minute))
	if d := e.nextReady(now); d != time.Minute {
		t.Errorf("next ready in %v", d)
	}
}

func TestPollSchedule(t *testing.T) {
	cfg := LinkConfig{}.withDefaults()
	now := time.Now()
	for _, tt := range []struct {
		name      string
		plan      schedule
		queue     outboxStats
		low, high time.Duration
	}{
		{"first", schedule{}, outboxStats{}, 0, 0},
		{"after a failure", schedule{lastActivity: now.Add(-time.Hour)}, outboxStats{}, 0, 0},
		{"idle", schedule{last: now}, outboxStats{}, 5 * time.Minute, 450 * time.Second},
		{"active just now", schedule{last: now, lastActivity: now}, outboxStats{}, 200 * time.Millisecond, 200 * time.Millisecond},
		{"active a minute ago", schedule{last: now, lastActivity: now.Add(-time.Minute)}, outboxStats{}, 6200 * time.Millisecond, 6200 * time.Millisecond},
		{"queued", schedule{last: now}, outboxStats{Waiting: 1, Oldest: now}, 5 * time.Second, 7500 * time.Millisecond},
		{"queued for long", schedule{last: now}, outboxStats{Waiting: 1, Oldest: now.Add(-time.Minute)}, 0, 0},
		{"many", schedule{last: now}, outboxStats{Waiting: 100, Oldest: now}, 0, 0},
		{"much", schedule{last: now}, outboxStats{Waiting: 8, WaitingBytes: 15 << 20, Oldest: now}, 0, 0},
	} {
		tt.plan.cfg = cfg
		for range 100 {
			if got := tt.plan.wait(now, tt.queue); got < tt.low || got > tt.high {
				t.Errorf("%s: %v, want between %v and %v", tt.name, got, tt.low, tt.high)
				break
			}
		}
	}
}

func TestWatchdog(t *testing.T) { // G-23
	synctest.Test(t, func(t *testing.T) {
		barked := make(chan time.Duration, 10)
		start := time.Now()
		w := newWatchdog(time.Hour, func() { barked <- time.Since(start) })
		w.reset()
		time.Sleep(119 * time.Minute)
		w.reset()
		time.Sleep(119 * time.Minute)
		if len(barked) > 0 {
			t.Fatal("it barks at a wait that is configured")
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if len(barked) != 1 {
			t.Fatalf("it barks %d times", len(barked))
		}
		w.reset()
		w.stop()
		time.Sleep(100 * time.Hour)
		if len(barked) != 1 {
			t.Error("it barks at a session that lasts")
		}
	})
}

// A server may be silent for as long as it likes, but for recordTimeout only once it has begun a record.
func TestStallInTheMiddleOfARecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, server := io.Pipe()
		late := make(chan struct{}, 1)
		p := &pacedReader{from: from, idle: true, late: func() { late <- struct{}{} }}
		defer p.rest()
		for _, last := range []bool{false, true} {
			time.Sleep(10 * recordTimeout)                    // of the bubble's clock
			go func() { _, _ = server.Write([]byte{1, 2}) }() // ends with what is read next
			for range 2 {
				if _, err := p.Read(make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(recordTimeout/2 - time.Second)
			}
			if len(late) > 0 {
				t.Fatal("it was cut before its time")
			}
			if !last {
				p.rest() // the record was complete
			}
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if len(late) != 1 {
			t.Error("a record that does not end is waited for")
		}
	})
}

func TestFileURL(t *testing.T) { // G-41
	if got, want := fileURL("h:1", "a b", "x/y%z"), "https://h:1/files/a%2520b/x%252Fy%2525z"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAgreedLifetime(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"":          sessionLifetime,
		"walrus":    sessionLifetime,
		"0":         sessionLifetime,
		"3600":      time.Hour + lifetimeSlack,
		"999999999": maxLifetime + lifetimeSlack,
	} {
		if got := agreedLifetime(http.Header{wire.SessionLifetimeHeader: {value}}); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

func TestValidText(t *testing.T) {
	for _, tt := range []struct {
		text  string
		limit int
		want  string
	}{
		{"plain", 10, "plain"},
		{"plain", 3, "pla"},
		{"a\xffb", 10, "a\ufffdb"},
		{"aäb", 2, "a"},
		{"", math.MaxInt, ""},
	} {
		if got := validText(tt.text, tt.limit); got != tt.want {
			t.Errorf("%q cut at %d: %q, want %q", tt.text, tt.limit, got, tt.want)
		}
	}
}
