package server

import (
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/farspeak/farspeak/internal/wire"
)

// lifetimeSpread is the part of a lifetime that is left to chance (G-25).
const lifetimeSpread = 5

// lifetime chooses how long a session may last, by the header of its request. An agent that leaves the end to the server
// gets a long one, which the answer has to promise: a fleet at rest then shakes hands a few times a day and not six times an
// hour. The original's hang up by themselves, and are promised nothing.
func (s *Server) lifetime(request http.Header) (length, promised time.Duration) {
	if request.Get(wire.AgentHeader) == "" {
		return shortened(s.cfg.StreamLifetime), 0
	}
	length = shortened(s.cfg.LongStreamLifetime)
	return length, length
}

// shortened takes up to a fifth off, so that sessions which began together do not end together.
func shortened(longest time.Duration) time.Duration {
	return longest - rand.N(longest/lifetimeSpread+1)
}
