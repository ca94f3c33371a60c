package server_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/server"
	"github.com/farspeak/farspeak/internal/services"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// noService takes everything, as the NOOP service does.
type noService struct{}

func (noService) Ingest(context.Context, services.Batch) error { return nil }

// BenchmarkWakes has parked sessions wake up for a record of one message: of so many sessions at the same time. Both ends of
// the TLS connections are in this process.
func BenchmarkWakes(b *testing.B) {
	const sessions = 480
	f := start(b, func(c *server.Config) { c.Services = noService{} })
	var streams [sessions]*testStream
	for i := range streams {
		streams[i] = f.idle(b, "")
		if err := streams[i].raw.SetDeadline(time.Time{}); err != nil {
			b.Fatal(err)
		}
	}
	m := toService("S", "a message's own name")
	m.Data = &anypb.Any{TypeUrl: "type.googleapis.com/test", Value: make([]byte, 200)}
	record := framed(newTestAgent(b, f.address).wrap(&fspb.ContactData{Messages: []*fspb.Message{m}}))
	chunk := fmt.Appendf(nil, "%x\r\n%s\r\n", len(record), record)
	for _, together := range []int{1, 16} {
		b.Run(fmt.Sprint(together), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				first := i * together % sessions
				for _, s := range streams[first : first+together] {
					if _, err := s.raw.Write(chunk); err != nil {
						b.Fatal(err)
					}
				}
				for _, s := range streams[first : first+together] {
					s.next()
				}
			}
		})
	}
}
