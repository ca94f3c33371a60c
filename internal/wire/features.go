package wire

import (
	"net/http"
	"slices"
	"strings"
)

// FeaturesHeader is an optional response header by which a server tells what it does beyond the protocol (G-42). Peers that
// do not know it ignore it, and nobody may depend on it being there.
const FeaturesHeader = "Farspeak-Features"

// FeatureOrderedAcks says that acknowledgements come in the order of the records, and that none is skipped: an agent may
// release a record with its own acknowledgement instead of waiting for the complete set.
const FeatureOrderedAcks = "ordered-acks"

// ServerFeatures is the value that our server sends.
const ServerFeatures = FeatureOrderedAcks

// HasFeature says whether a response announces a feature.
func HasFeature(header http.Header, feature string) bool {
	return slices.Contains(strings.Split(header.Get(FeaturesHeader), ","), feature)
}
