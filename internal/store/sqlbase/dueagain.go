package sqlbase

import (
	"context"
	"slices"

	"github.com/farspeak/farspeak/internal/identity"
)

// dueAgain changes rows in ranges of PRIMARY.
const dueAgain = `UPDATE client_messages {index PRIMARY} SET due_us = {now}
	WHERE client_id IN ({list}) AND attempts = 1 AND due_us > {now}`

// dueAgain makes what was handed out once to clients due again, because their session broke, maybe with its server. From the
// second try on, the redelivery interval counts, so that a message that breaks its client does so at that pace.
func (t session) dueAgain(ctx context.Context, clients []identity.ClientID) error {
	for chunk := range slices.Chunk(sortedClients(slices.Values(clients)), maxList) {
		if _, err := t.exec(ctx, t.s.sql(dueAgain, len(chunk)), clientArgs(chunk)...); err != nil {
			return err
		}
	}
	return nil
}
