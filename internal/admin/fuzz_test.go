package admin_test

import (
	"context"
	"encoding/base64"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/admin"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// acceptingStore takes every message, and keeps what it was given last.
type acceptingStore struct {
	*failingStore
	mu   sync.Mutex
	last *fspb.Message
}

func (s *acceptingStore) keep(m *fspb.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = m
}

func (s *acceptingStore) taken() *fspb.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.last
	s.last = nil
	return m
}

func (s *acceptingStore) InsertMessages(_ context.Context, messages []*fspb.Message) ([]store.InsertOutcome, error) {
	s.keep(messages[0])
	return make([]store.InsertOutcome, len(messages)), nil
}

func (s *acceptingStore) AddBacklog(_ context.Context, messages []store.BacklogMessage, _ time.Duration, _ uint64) ([]error, error) {
	s.keep(messages[0].Message)
	return make([]error, len(messages)), nil
}

// Whatever message comes, what reaches the store is complete and within its bounds, and the rest is refused as invalid or
// unknown.
func FuzzInsertMessage(f *testing.F) {
	full := message(identity.NewClientID())
	full.Result = &fspb.MessageResult{Failed: true}
	for _, m := range []*fspb.Message{full, message(identity.ClientID{}), {}, {Destination: &fspb.Address{}}} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	s := &acceptingStore{failingStore: &failingStore{}}
	server := serve(f, s, nil).server
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &fspb.Message{}
		if proto.Unmarshal(b, m) != nil {
			return
		}
		err := server.Insert(t.Context(), m)
		stored := s.taken()
		switch code := status.Code(err); {
		case code == codes.InvalidArgument || code == codes.NotFound:
			if stored != nil {
				t.Errorf("%v, and yet stored", err)
			}
			return
		case err != nil || stored == nil:
			t.Fatalf("%v, stored %v", err, stored)
		}
		if len(stored.MessageId) != identity.MessageIDSize || stored.CreationTime.CheckValid() != nil || stored.Result != nil ||
			stored.GetDestination().GetServiceName() == "" || stored.GetSource().GetServiceName() == "" {
			t.Errorf("stored %v", stored)
		}
	})
}

// A page token that is accepted means one place.
func FuzzPageToken(f *testing.F) {
	f.Add("")
	f.Add("?")
	f.Add(base64.RawURLEncoding.EncodeToString(make([]byte, 32)))
	f.Add(base64.RawURLEncoding.EncodeToString(append(make([]byte, 32), "shell"...)))
	f.Fuzz(func(t *testing.T, token string) {
		again, err := admin.RoundTrip(token)
		if err != nil {
			return
		}
		if twice, err := admin.RoundTrip(again); err != nil || twice != again {
			t.Errorf("%q becomes %q, then %q, %v", token, again, twice, err)
		}
	})
}
