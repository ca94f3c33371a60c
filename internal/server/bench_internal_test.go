package server

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/clientcert"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/services"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// deaf is a stream whose peer takes everything and says nothing.
type deaf struct{}

func (deaf) Read([]byte) (int, error)        { select {} }
func (deaf) SetReadDeadline(time.Time) error { return nil }
func (deaf) ready() bool                     { return false }
func (deaf) park(func()) bool                { return false }
func (deaf) start()                          {}
func (deaf) Write(p []byte) (int, error)     { return len(p), nil }
func (deaf) BoundWrites(time.Duration) error { return nil }
func (deaf) refuse(*refusal)                 {}
func (deaf) finish()                         {}
func (deaf) abort()                          {}
func (deaf) close()                          {}

type noServices struct{}

func (noServices) Ingest(context.Context, services.Batch) error { return nil }

type noListener struct{ net.Listener }

func benchServer(b *testing.B) *Server {
	b.Helper()
	extractor, err := clientcert.New(clientcert.Config{})
	if err != nil {
		b.Fatal(err)
	}
	s, err := New(Config{Store: struct{ Store }{}, Services: noServices{}, Listener: noListener{}, Certificates: extractor})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.closeBatchers)
	return s
}

func benchSession(s *Server, number uint64) *session {
	var id identity.ClientID
	binary.BigEndian.PutUint64(id[:], number*0x9e3779b97f4a7c15)
	return s.newSession(deaf{}, 0, peer{Identity: &clientcert.Identity{ID: id}})
}

func BenchmarkPush(b *testing.B) {
	s := benchServer(b)
	n := benchSession(s, 1)
	for _, size := range []int{100, 10_000, 1_000_000} {
		encoded, err := proto.Marshal(&fspb.Message{MessageType: "T", SourceMessageId: make([]byte, size)})
		if err != nil {
			b.Fatal(err)
		}
		messages := []*store.PendingMessage{{ClientID: n.id, Service: "S", Type: "T", Encoded: encoded}}
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(encoded)))
			for b.Loop() {
				if err := n.push(messages, always); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAcknowledge(b *testing.B) {
	n := benchSession(benchServer(b), 1)
	b.ReportAllocs()
	for index := uint64(1); b.Loop(); index++ {
		if err := n.acknowledge(index); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeRecord(b *testing.B) {
	s := benchServer(b)
	for _, count := range []int{0, 1, 100} {
		data := &fspb.ContactData{AllowedMessages: map[string]uint64{"system": 100, "S": 3}}
		for range count {
			data.Messages = append(data.Messages, &fspb.Message{
				Source: &fspb.Address{ServiceName: "S"}, Destination: &fspb.Address{ServiceName: "S"},
				MessageType: "T", SourceMessageId: make([]byte, 16),
			})
		}
		inner, err := proto.Marshal(data)
		if err != nil {
			b.Fatal(err)
		}
		body, err := proto.Marshal(&fspb.WrappedContactData{ContactData: inner, ClientLabels: []string{"linux"}})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				rec, err := s.decodeRecord(body, s.budget)
				if err != nil {
					b.Fatal(err)
				}
				rec.charge.release()
			}
		})
	}
}

const benchSessions = 100_000

// BenchmarkExpiry tells and re-arms sessions among a hundred thousand.
func BenchmarkExpiry(b *testing.B) {
	s := benchServer(b)
	sessions := make([]*session, benchSessions)
	for i := range sessions {
		sessions[i] = benchSession(s, uint64(i))
		s.expiry.addOpening(sessions[i])
		s.expiry.live(sessions[i], shortened(s.cfg.StreamLifetime))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		n := sessions[i%benchSessions]
		s.expiry.remove(n)
		s.expiry.addOpening(n)
		s.expiry.live(n, shortened(s.cfg.StreamLifetime))
		s.expiry.due(time.Now())
	}
}

func BenchmarkRegistry(b *testing.B) {
	s := benchServer(b)
	sessions := make([]*session, benchSessions)
	for i := range sessions {
		sessions[i] = benchSession(s, uint64(i))
		s.registry.hold(sessions[i])
		s.registry.add(sessions[i])
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			n := sessions[i%benchSessions]
			if s.registry.get(n.id) != n {
				b.Error("not found")
			}
		}
	})
}
