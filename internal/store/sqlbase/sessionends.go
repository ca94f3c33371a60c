package sqlbase

import (
	"context"
	"slices"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	// heldBy locks rows by ranges of PRIMARY, in its order.
	heldBy = `SELECT client_id FROM clients {index PRIMARY} WHERE client_id IN ({list}) AND streaming_to = ?
		ORDER BY client_id {lock}`

	// endSessions changes rows by ranges of PRIMARY.
	endSessions = `UPDATE clients {index PRIMARY} SET streaming_to = '',
		last_contact_us = CASE WHEN last_contact_us < {now} THEN {now} ELSE last_contact_us END
		WHERE client_id IN ({list}) AND streaming_to = ?`

	// dueAgain changes rows in ranges of PRIMARY.
	dueAgain = `UPDATE client_messages {index PRIMARY} SET due_us = {now}
		WHERE client_id IN ({list}) AND attempts = 1 AND due_us > {now}`
)

// EndSessions says that sessions are over: their clients were there until now. Clients that stream elsewhere by now are
// left alone. What was handed out once to those whose session broke is due again.
func (s *Store) EndSessions(ctx context.Context, ends []store.SessionEnd) (err error) {
	defer s.op("EndSessions", &err)()
	byServer := make(map[string][]store.SessionEnd)
	for _, end := range ends {
		if end.StreamingTo != "" {
			address := cut(end.StreamingTo, maxAddress)
			byServer[address] = append(byServer[address], end)
		}
	}
	if len(byServer) == 0 {
		return nil
	}
	return s.write(ctx, func(t session) error {
		for _, address := range sortedKeys(byServer) {
			if err := t.endSessions(ctx, address, byServer[address]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t session) endSessions(ctx context.Context, address string, ends []store.SessionEnd) error {
	var all, broken []identity.ClientID
	for _, end := range ends {
		all = append(all, end.ClientID)
		if end.Broken {
			broken = append(broken, end.ClientID)
		}
	}
	if err := t.endBroken(ctx, address, broken); err != nil {
		return err
	}
	for chunk := range slices.Chunk(sortedClients(slices.Values(all)), maxList) {
		if _, err := t.exec(ctx, t.s.sql(endSessions, len(chunk)), append(clientArgs(chunk), address)...); err != nil {
			return err
		}
	}
	return nil
}

// endBroken lets clients have again what broken sessions held. A client that streams elsewhere by now was found to be held
// here still when that began, and has it already.
func (t session) endBroken(ctx context.Context, address string, broken []identity.ClientID) error {
	for chunk := range slices.Chunk(sortedClients(slices.Values(broken)), maxList) {
		here, err := t.clientIDs(ctx, t.s.sql(heldBy, len(chunk)), append(clientArgs(chunk), address)...)
		if err != nil {
			return err
		}
		if err := t.dueAgain(ctx, here); err != nil {
			return err
		}
	}
	return nil
}

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
