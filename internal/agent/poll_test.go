package agent_test

import (
	"bytes"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/agent"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

func polling(c *agent.Config) {
	c.Link.Streaming = false
	c.Link.MaxBufferDelay = 50 * time.Millisecond
}

func (s *fakeServer) nextPoll() *fakePoll {
	s.t.Helper()
	return receive(s.t, s.polls, "a poll")
}

func TestPolls(t *testing.T) {
	t.Parallel()
	for _, deflate := range []bool{false, true} {
		s := newFakeServer(t)
		r := start(t, s, func(c *agent.Config) {
			polling(c)
			c.Link.Deflate = deflate
		}, "echo")
		p := s.nextPoll()
		if deflate != (p.attempt.length < 0) || deflate != (p.attempt.header.Get("Content-Encoding") == "deflate") { // G-05
			t.Errorf("deflate %t: length %d, headers %v", deflate, p.attempt.length, p.attempt.header)
		}
		if len(find(p.record, "ClientInfo")) != 1 || p.record.data.SequencingNonce != 0 {
			t.Errorf("the first poll has %v", p.record.data)
		}
		grant := map[string]uint64{"system": 100, "echo": 100}
		if !maps.Equal(p.record.data.AllowedMessages, grant) {
			t.Errorf("grant is %v", p.record.data.AllowedMessages)
		}
		m := toClient(t, p.id, "echo", "hello", nil)
		p.answer <- &fspb.ContactData{SequencingNonce: 11, Messages: []*fspb.Message{m}}
		receive(t, r.probe("echo").messages, "the message")
		p = s.nextPoll()
		if ids := acked(t, find(p.record, "MessageAck")[0]); len(ids) != 1 || !bytes.Equal(ids[0], m.MessageId) {
			t.Errorf("acks of %x", ids)
		}
		if p.record.data.SequencingNonce != 11 || !maps.Equal(p.record.data.AllowedMessages, grant) {
			t.Errorf("the second poll has %v", p.record.data)
		}
		p.answer <- &fspb.ContactData{SequencingNonce: 12}
	}
}

func TestFailedPollIsSentAgain(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.setRefuse(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/message" || len(s.requests("/message")) > 2 {
			return false
		}
		http.Error(w, "Server not ready.", http.StatusInternalServerError)
		return true
	})
	r := start(t, s, polling, "echo")
	p := s.nextPoll()
	p.answer <- &fspb.ContactData{}
	info := len(find(p.record, "ClientInfo"))
	for i := range byte(3) {
		r.send("echo", i, fspb.Message_MEDIUM)
	}
	var got []byte
	for len(got) < 3 || info < 1 {
		p := s.nextPoll()
		got = append(got, numbers(p.record)...)
		info += len(find(p.record, "ClientInfo"))
		p.answer <- &fspb.ContactData{}
	}
	if !bytes.Equal(got, []byte{0, 1, 2}) || info != 1 {
		t.Errorf("got %v and %d descriptions of the client", got, info)
	}
}

// After a failure the next poll comes with the wait for failures, however long the waits of good times are.
func TestFailedPollDoesNotWaitForTheSchedule(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.setRefuse(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/message" || len(s.requests("/message")) > 2 {
			return false
		}
		http.Error(w, "Server not ready.", http.StatusInternalServerError)
		return true
	})
	start(t, s, func(c *agent.Config) {
		polling(c)
		c.Link.MaxPollDelay, c.Link.MaxBufferDelay = time.Hour, time.Hour
	})
	s.nextPoll().answer <- &fspb.ContactData{}
	if got := len(s.requests("/message")); got != 3 {
		t.Errorf("%d polls, want 3", got)
	}
}

// The last good server is asked first, for as long as it is good.
func TestPollsStayWithAServer(t *testing.T) {
	t.Parallel()
	one, other := newFakeServer(t), newFakeServer(t)
	start(t, one, func(c *agent.Config) {
		polling(c)
		c.Link.MaxPollDelay = time.Millisecond
		c.Link.Servers = []string{one.address(), other.address()}
		c.Link.Roots.AddCert(other.http.Certificate())
	})
	good, spare := one, other
	select {
	case p := <-one.polls:
		p.answer <- &fspb.ContactData{}
	case p := <-other.polls:
		p.answer <- &fspb.ContactData{}
		good, spare = other, one
	case <-time.After(patience):
		t.Fatal("no poll comes")
	}
	stays := func() (last *fakePoll) {
		t.Helper()
		for range 10 {
			good.nextPoll().answer <- &fspb.ContactData{}
		}
		last = good.nextPoll()
		if len(spare.polls) > 0 {
			t.Error("the other server is asked, too")
		}
		return last
	}
	last := stays()
	good.setRefuse(func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "Server not ready.", http.StatusInternalServerError)
		return true
	})
	last.answer <- &fspb.ContactData{}
	spare.nextPoll().answer <- &fspb.ContactData{}
	good.setRefuse(nil)
	good, spare = spare, good
	stays().answer <- &fspb.ContactData{}
}

func TestPolledRekey(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, polling)
	p := s.nextPoll()
	m := toClient(t, p.id, "system", "RekeyRequest", nil)
	p.answer <- &fspb.ContactData{Messages: []*fspb.Message{m}}
	next := s.nextPoll()
	if next.id == p.id || next.id != r.agent.ID() {
		t.Errorf("the next poll is of client %v, it was %v", next.id, p.id)
	}
	var info, acks int
	for {
		info += len(find(next.record, "ClientInfo"))
		acks += len(find(next.record, "MessageAck"))
		next.answer <- &fspb.ContactData{}
		if info == 1 && acks == 1 {
			return
		}
		next = s.nextPoll()
	}
}

func TestFarewellPoll(t *testing.T) { // G-57
	t.Parallel()
	s := newFakeServer(t)
	r := start(t, s, func(c *agent.Config) {
		polling(c)
		c.Link.MaxBufferDelay = time.Hour
	}, "echo")
	s.nextPoll().answer <- &fspb.ContactData{}
	r.send("echo", 1, fspb.Message_MEDIUM)
	nothing(t, s.polls, 100*time.Millisecond, "a poll before the buffer delay")
	r.stop()
	p := s.nextPoll()
	if got := numbers(p.record); !bytes.Equal(got, []byte{1}) {
		t.Errorf("the last poll has %v", got)
	}
	p.answer <- &fspb.ContactData{}
	if err := r.exit(); err != nil {
		t.Errorf("ended with %v", err)
	}
}
