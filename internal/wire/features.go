package wire

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// FeaturesHeader is an optional response header by which a server tells what it does beyond the protocol (G-42). Peers that
// do not know it ignore it, and nobody may depend on it being there.
const FeaturesHeader = "Farspeak-Features"

// FeatureOrderedAcks says that acknowledgements come in the order of the records, and that none is skipped: an agent may
// release a record with its own acknowledgement instead of waiting for the complete set.
const FeatureOrderedAcks = "ordered-acks"

// FeatureSharedTickets says that a TLS session can be resumed on any server of the fleet, also after a restart: an agent with a
// ticket may leave the costly half of the key exchange out.
const FeatureSharedTickets = "shared-tickets"

// AgentHeader is an optional request header with the version of our agent: it says that the agent keeps a session for as
// long as the server likes.
const AgentHeader = "Farspeak-Agent"

// SessionLifetimeHeader is an optional response header: in how many whole seconds the server means to end the session. Our
// agent then does not end it earlier; without the header it keeps to the original's lifetime.
const SessionLifetimeHeader = "Farspeak-Session-Lifetime"

// FormatLifetime is the header's value, rounded up to whole seconds.
func FormatLifetime(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// Lifetime is what the header says; 0 when it says nothing.
func Lifetime(header http.Header) time.Duration {
	seconds, err := strconv.ParseUint(header.Get(SessionLifetimeHeader), 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// Features is the value of FeaturesHeader for some features.
func Features(names ...string) string { return strings.Join(names, ", ") }

// HasFeature says whether a response announces a feature.
func HasFeature(header http.Header, feature string) bool {
	names := strings.Split(header.Get(FeaturesHeader), ",")
	return slices.ContainsFunc(names, func(name string) bool { return strings.TrimSpace(name) == feature })
}
