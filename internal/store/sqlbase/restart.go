package sqlbase

import (
	"context"
	"slices"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

// dueAgain changes rows in ranges of PRIMARY.
const dueAgain = `UPDATE client_messages {index PRIMARY} SET due_us = ? WHERE client_id IN ({list}) AND attempts = 1 AND due_us > ?`

// restart makes what was handed out once due again for clients that start a new session: the session before ended without
// an acknowledgement of it, maybe with its server. From the second try on, the redelivery interval counts, so that a
// message that breaks its client does so at that pace.
func (t session) restart(ctx context.Context, outcomes []store.ContactOutcome, now int64) error {
	var ids []identity.ClientID
	for _, o := range outcomes {
		if o.Err == nil && !o.New && o.Client.StreamingTo != "" {
			ids = append(ids, o.Client.ID)
		}
	}
	for chunk := range slices.Chunk(sortedClients(slices.Values(ids)), maxList) {
		args := append(append([]any{now}, clientArgs(chunk)...), now)
		if _, err := t.exec(ctx, t.s.sql(dueAgain, len(chunk)), args...); err != nil {
			return err
		}
	}
	return nil
}
