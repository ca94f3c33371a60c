package agent_test

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/agent"
)

// A server that goes away between record 0 and its answer is noticed at once.
func TestServerDiesBeforeItAnswers(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]int{"before record 0": 0, "within record 0": 2, "after record 0": 20} {
		s := newFakeServer(t)
		var died atomic.Bool
		s.setRefuse(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/streaming-message" || died.Swap(true) {
				return false
			}
			if _, err := io.ReadFull(r.Body, make([]byte, last)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return true
			}
			_ = conn.Close()
			return true
		})
		start(t, s, nil, "echo")
		s.open()
		if got := len(s.requests("/streaming-message")); got != 2 {
			t.Errorf("%s: %d attempts, want 2", name, got)
		}
	}
}

// A server that closes right after its answer is not tried again and again in a tight loop.
func TestShortSessionsBackOff(t *testing.T) { // G-25
	t.Parallel()
	s := newFakeServer(t)
	start(t, s, nil)
	for range 4 {
		s.open().finish()
	}
	attempts := s.requests("/streaming-message")
	if took := attempts[3].at.Sub(attempts[0].at); took < 50*time.Millisecond {
		t.Errorf("four sessions within %v", took)
	}
}

func TestOKWithoutAnAnswerIsAFailure(t *testing.T) { // G-07
	t.Parallel()
	s := newFakeServer(t)
	s.setRefuse(func(w http.ResponseWriter, r *http.Request) bool {
		return r.URL.Path == "/streaming-message"
	})
	r := start(t, s, nil)
	waitUntil(t, func() bool { return r.agent.Status().Link.LastError != "" })
	if got := r.agent.Status().Link; got.Server != "" || !got.LastContact.IsZero() {
		t.Errorf("status is %+v", got)
	}
}

func TestCompressionIsGivenUpWhenRefused(t *testing.T) { // G-05
	t.Parallel()
	for _, code := range []int{http.StatusUnsupportedMediaType, http.StatusBadRequest} {
		s := newFakeServer(t)
		s.setRefuse(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Content-Encoding") == "" {
				return false
			}
			http.Error(w, "no", code)
			return true
		})
		start(t, s, func(c *agent.Config) { c.Link.Deflate = true })
		if n := s.open(); n.attempt.header.Get("Content-Encoding") != "" {
			t.Errorf("after %d: still compressed", code)
		}
	}
}

func TestRetryAfterIsObeyed(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.setRefuse(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/streaming-message" || len(s.requests(r.URL.Path)) > 1 {
			return false
		}
		w.Header().Set("Retry-After", "2")
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return true
	})
	start(t, s, nil)
	s.open()
	attempts := s.requests("/streaming-message")
	if len(attempts) != 2 || attempts[1].at.Sub(attempts[0].at) < 2*time.Second {
		t.Errorf("%d attempts, the second after %v", len(attempts), attempts[1].at.Sub(attempts[0].at))
	}
}

func TestDeadServerIsSkipped(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	dead := newFakeServer(t)
	dead.http.Close()
	start(t, s, func(c *agent.Config) { c.Link.Servers = []string{dead.address(), s.address(), dead.address()} })
	s.open()
}

func TestLonelyAgentEnds(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.http.Close()
	r := start(t, s, func(c *agent.Config) {
		c.Link.LonelyLimit = 100 * time.Millisecond
		c.Link.MaxFailureDelay = time.Second
	})
	if err := r.exit(); !errors.Is(err, agent.ErrLonely) {
		t.Errorf("ended with %v", err)
	}
}
