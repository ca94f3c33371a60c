package services_test

import (
	"fmt"
	"testing"

	"github.com/farspeak/farspeak/internal/services"
)

func BenchmarkIngestNOOP(b *testing.B) {
	for _, size := range []int{1, 10} {
		b.Run(fmt.Sprintf("messages=%d", size), func(b *testing.B) {
			m := newManager(b, services.Config{Store: newFakeStore(), Services: []services.Spec{{Name: "S", Factory: services.FactoryNOOP}}})
			batch := batchOf("S", size)
			b.ReportAllocs()
			for b.Loop() {
				if err := m.Ingest(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkIngestGRPC(b *testing.B) {
	for way, newBackend := range map[string]newBackendFunc{"calls": newBackend, "streams": newStreaming} {
		for _, size := range []int{1, 10} {
			b.Run(fmt.Sprintf("way=%s/messages=%d", way, size), func(b *testing.B) {
				peer := newBackend(nil)
				peer.service = nil
				peer.serve(b)
				m := newManager(b, services.Config{Store: newFakeStore(), Services: peer.spec(0)})
				b.ReportAllocs()
				b.SetParallelism(16) // sessions
				b.RunParallel(func(pb *testing.PB) {
					batch := batchOf("S", size)
					for pb.Next() {
						if err := m.Ingest(b.Context(), batch); err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
	}
}

func TestIngestOfAcceptedMessagesAllocatesNothing(t *testing.T) {
	m := newManager(t, services.Config{Store: newFakeStore(), Services: []services.Spec{{Name: "S", Factory: services.FactoryNOOP}}})
	batch := batchOf("S", 10)
	if n := testing.AllocsPerRun(100, func() {
		if err := m.Ingest(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations for 10 messages", n)
	}
}
