package notify

import (
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

// HandOver tells the server at address that these messages wait for their clients.
func (c *Client) HandOver(address string, handovers ...*store.Handover) {
	ids := make([]identity.ClientID, len(handovers))
	for i, h := range handovers {
		ids[i] = h.Message.ClientID
	}
	c.Notify(address, ids...)
}
