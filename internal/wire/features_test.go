package wire_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/wire"
)

// Features are told in a header that the original ignores, and absence means none (G-42).
func TestFeatures(t *testing.T) {
	for value, want := range map[string]bool{
		"": false, wire.Features("x", wire.FeatureOrderedAcks): true, "x,ordered-acks": true, "x, ordered-acks": true, "ordered-acks-not": false,
	} {
		if got := wire.HasFeature(http.Header{wire.FeaturesHeader: {value}}, wire.FeatureOrderedAcks); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

// The lifetime of a session is told in whole seconds, never less than it is; what cannot be read says nothing.
func TestLifetimeHeader(t *testing.T) {
	for d, want := range map[time.Duration]string{time.Hour: "3600", time.Millisecond: "1", 1500 * time.Millisecond: "2"} {
		if got := wire.FormatLifetime(d); got != want {
			t.Errorf("%v is written as %q, want %q", d, got, want)
		}
	}
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "-1": 0, "walrus": 0, "1.5": 0, "99999999999": 0, "3600": time.Hour,
	} {
		if got := wire.Lifetime(http.Header{wire.SessionLifetimeHeader: {value}}); got != want {
			t.Errorf("%q is read as %v, want %v", value, got, want)
		}
	}
}
