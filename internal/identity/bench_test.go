package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"

	"github.com/farspeak/farspeak/internal/identity"
)

// TestMessageIDForDoesNotAllocate: it runs once for each message of each client.
func TestMessageIDForDoesNotAllocate(t *testing.T) {
	client, source := identity.NewClientID(), make([]byte, 16)
	var id identity.MessageID
	if n := testing.AllocsPerRun(100, func() { id = identity.MessageIDFor(client, "system", source) }); n != 0 {
		t.Errorf("%v allocations for %v", n, id)
	}
}

func BenchmarkMessageIDFor(b *testing.B) {
	client, source := identity.NewClientID(), make([]byte, 16)
	b.ReportAllocs()
	for b.Loop() {
		identity.MessageIDFor(client, "system", source)
	}
}

func BenchmarkClientIDFromKey(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := identity.ClientIDFromKey(key.Public()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkClientIDString(b *testing.B) {
	id := identity.NewClientID()
	b.ReportAllocs()
	for b.Loop() {
		_ = id.String()
	}
}

func BenchmarkParseClientID(b *testing.B) {
	text := identity.NewClientID().String()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := identity.ParseClientID(text); err != nil {
			b.Fatal(err)
		}
	}
}
