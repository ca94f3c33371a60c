package server

import "github.com/farspeak/farspeak/internal/identity"

// For tests in package server_test.
var (
	CheckMemory   = (*Server).checkMemory
	RegisterAgain = (*Server).registerAgain
	Lifetime      = (*Server).lifetime
	Close         = (*Server).closeBatchers
)

// Idle says that the current session of a client is open, and neither marked nor being handed anything.
func Idle(s *Server, id identity.ClientID) bool {
	n := s.registry.get(id)
	if n == nil {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.phase == fetchIdle
}

// Opening is how many sessions are there, those included that are still opening.
func Opening(s *Server) int { return len(s.expiry.all()) }

// NewReserve returns the question that decides on a registration from an address, and what settles it.
func NewReserve(limits RegistrationLimits, addresses bool) func(address string) (settle func(registered bool), ok bool) {
	limiter := newRegistrationLimiter(limits, addresses)
	return func(address string) (func(bool), bool) {
		place, ok := limiter.reserve(address)
		return place.settle, ok
	}
}

// Decode does what a record goes through before its messages reach a service, and returns how many do.
func Decode(s *Server, body []byte) (int, error) {
	rec, err := s.decodeContact(body, s.budget)
	if err != nil {
		return 0, err
	}
	defer rec.charge.release()
	return len(s.admit([8]byte{1}, rec.data.Messages, rec.validity)), nil
}
