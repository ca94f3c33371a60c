package clientcert_test

import (
	"net/netip"
	"testing"

	"github.com/farspeak/farspeak/internal/clientcert"
)

// BenchmarkExtract finds the client of a TLS connection, as each session does once.
func BenchmarkExtract(b *testing.B) {
	x, state := mustNew(b, clientcert.Config{}), parsed(b, readRecorded(b)[0].Certificate)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x.Extract(state, nil, netip.Addr{}); err != nil {
			b.Fatal(err)
		}
	}
}
