package agent_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/agent"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// impatient is a server that refuses contacts above limit as a server does that was sent them too slowly.
type impatient struct {
	*fakeServer
	limit   int
	open    atomic.Bool  // before, it refuses everything for another reason
	early   atomic.Int64 // contacts that came before it was open
	refused chan int     // sizes
}

func newImpatientServer(t *testing.T, limit int) *impatient {
	t.Helper()
	s := &impatient{fakeServer: newFakeServer(t), limit: limit, refused: make(chan int, 100)}
	s.setRefuse(s.answers)
	return s
}

func (s *impatient) answers(w http.ResponseWriter, r *http.Request) bool {
	if strings.HasPrefix(r.URL.Path, "/files/") {
		return false
	}
	if !s.open.Load() {
		s.early.Add(1)
		http.Error(w, "not yet", http.StatusServiceUnavailable)
		return true
	}
	content, size := readContact(s.t, r)
	if size <= s.limit {
		r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(content), r.Body))
		return false
	}
	s.refused <- size
	http.Error(w, "the record did not arrive in time", http.StatusRequestTimeout)
	return true
}

// readContact reads a poll, or a stream up to the end of record 0, and tells how large that is.
func readContact(t *testing.T, r *http.Request) (content []byte, size int) {
	t.Helper()
	var seen bytes.Buffer
	in := bufio.NewReaderSize(io.TeeReader(r.Body, &seen), 16)
	length := uint64(1 << 30)
	if r.URL.Path == "/streaming-message" {
		if _, err := in.Discard(4); err != nil {
			t.Errorf("magic: %v", err)
		}
		var err error
		if length, err = binary.ReadUvarint(in); err != nil {
			t.Errorf("length of record 0: %v", err)
		}
	}
	n, err := io.CopyN(io.Discard, in, int64(length))
	if err != nil && err != io.EOF {
		t.Errorf("contact: %v", err)
	}
	return seen.Bytes(), int(n)
}

// A backlog gets through where large contacts take longer than the server waits: what was too slow comes in smaller parts.
func TestBacklogOnASlowLine(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]func(*agent.Config){"session": func(*agent.Config) {}, "polls": polling} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newImpatientServer(t, 2<<20)
			r := start(t, s.fakeServer, func(c *agent.Config) {
				mode(c)
				c.Link.MaxFailureDelay = time.Second
			}, "echo")
			waitUntil(t, func() bool { return len(r.agent.Status().Services) == 2 })
			host := r.probe("echo").spec.Host
			for range 8 {
				m := &fspb.Message{
					Destination: &fspb.Address{ServiceName: "sink"}, MessageType: "large",
					Data: &anypb.Any{Value: make([]byte, 1<<20)},
				}
				if err := host.Send(t.Context(), m, nil); err != nil {
					t.Fatal(err)
				}
			}
			// The contact after the next one is made of all of them.
			early := s.early.Load()
			waitUntil(t, func() bool { return s.early.Load() >= early+2 })
			s.open.Store(true)
			if name == "polls" {
				p := s.nextPoll()
				p.answer <- &fspb.ContactData{}
				checkShrunk(t, s.refused, p.record)
			} else {
				checkShrunk(t, s.refused, s.fakeServer.open().first)
			}
		})
	}
}

// checkShrunk checks that there were refused contacts, each smaller than the one before, and then one with messages.
func checkShrunk(t *testing.T, refused <-chan int, accepted record) {
	t.Helper()
	if len(find(accepted, "large")) == 0 {
		t.Errorf("the accepted contact has %d messages, none of the backlog", len(accepted.data.Messages))
	}
	before := receive(t, refused, "a refused contact")
	for len(refused) > 0 {
		size := <-refused
		if size >= before {
			t.Errorf("a contact of %d bytes after one of %d was refused", size, before)
		}
		before = size
	}
}
