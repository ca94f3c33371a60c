package server

import (
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

// HandOver takes messages that were committed just now: that they wait for their clients.
func (s *Server) HandOver(handovers []*store.Handover) {
	ids := make([]identity.ClientID, len(handovers))
	for i, h := range handovers {
		ids[i] = h.Message.ClientID
	}
	s.Wake(ids)
}
