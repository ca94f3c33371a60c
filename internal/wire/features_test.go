package wire_test

import (
	"net/http"
	"testing"

	"github.com/farspeak/farspeak/internal/wire"
)

// Features are told in a header that the original ignores, and absence means none (G-42).
func TestFeatures(t *testing.T) {
	for value, want := range map[string]bool{
		"": false, wire.ServerFeatures: true, "x,ordered-acks": true, "x, ordered-acks": true, "ordered-acks-not": false,
	} {
		if got := wire.HasFeature(http.Header{wire.FeaturesHeader: {value}}, wire.FeatureOrderedAcks); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}
