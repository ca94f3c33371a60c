package sqlbase

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	// lockContacted locks rows by ranges of PRIMARY, in its order.
	lockContacted = `SELECT ` + clientColumns + `, {now} FROM clients {index PRIMARY} WHERE client_id IN ({list})
		ORDER BY client_id {lock}`

	insertClients   = `INSERT INTO clients (` + clientColumns + `) VALUES {rows} {ignore client_id}`
	insertClientRow = `(?, ?, 0, ?, ?, '', NULL, NULL, '')`

	// updateContacted changes rows by PRIMARY; all of them exist and are locked.
	updateContacted = `INSERT INTO clients (` + clientColumns + `) VALUES {rows}
		{upsert client_id: last_contact_us last_contact_address clock_seconds clock_nanos streaming_to}`
	updateContactedRow = `(?, ?, ?, ?, ?, ?, ?, ?, ?)`

	insertContacts = `INSERT INTO client_contacts (client_id, contact_us, sent_nonce, received_nonce, address) VALUES {rows}
		{ignore address}`
	insertContactRow = `(?, ?, ?, ?, ?)`

	// listContacts reads one range of PRIMARY, in order.
	listContacts = `SELECT contact_us, sent_nonce, received_nonce, address FROM client_contacts {index PRIMARY}
		WHERE client_id = ? AND contact_us > ? ORDER BY contact_us LIMIT ?`
)

// RecordContacts records contacts in the order given, and registers clients that are new. Two servers may register one
// client at the same time; with the same key both succeed, with another key the later one gets store.ErrKeyMismatch and
// nothing is recorded for it (G-44). The time of a contact is the store's, made unique for its client. Labels that a new
// client claims are left out when they do not fit, or are past store.MaxLabels. A key that cannot be one is
// store.ErrInvalid for its element. A session that starts where none has ended makes what was handed out once due again.
func (s *Store) RecordContacts(ctx context.Context,
	updates []store.ContactUpdate) (outcomes []store.ContactOutcome, err error) {
	defer s.op("RecordContacts", &err)()
	if len(updates) == 0 {
		return nil, nil
	}
	err = s.write(ctx, func(t session) error {
		var err error
		outcomes, err = t.recordContacts(ctx, updates)
		return err
	})
	if err != nil {
		return nil, err
	}
	return outcomes, nil
}

func (t session) recordContacts(ctx context.Context, updates []store.ContactUpdate) ([]store.ContactOutcome, error) {
	ids := contacted(updates)
	clients, now, err := t.lockContacted(ctx, ids)
	if err != nil {
		return nil, err
	}
	registered, err := t.register(ctx, updates, clients, now)
	if err != nil {
		return nil, err
	}
	if err := t.addLabels(ctx, clients); err != nil {
		return nil, err
	}
	outcomes := make([]store.ContactOutcome, len(updates))
	var contacts [][]any
	var broken []identity.ClientID
	touched := make(map[identity.ClientID]bool)
	for i, u := range updates {
		if !fitsKey(u.Key) {
			outcomes[i].Err = fmt.Errorf("%w: key of %d bytes", store.ErrInvalid, len(u.Key))
			continue
		}
		c := clients[u.ClientID]
		if !bytes.Equal(c.Key, u.Key) {
			outcomes[i].Err = store.ErrKeyMismatch
			continue
		}
		if u.StreamingTo != "" && c.StreamingTo != "" {
			broken = append(broken, c.ID) // the end of the session before is not recorded
		}
		isNew := registered[u.ClientID] && !touched[u.ClientID]
		touch(c, u, now, isNew)
		touched[c.ID] = true
		contacts = append(contacts, []any{
			u.ClientID[:], micros(c.LastContact), int64(u.SentNonce), int64(u.ReceivedNonce), c.LastContactAddress,
		})
		seen := *c
		outcomes[i] = store.ContactOutcome{Client: &seen, New: isNew}
	}
	if _, err := t.insert(ctx, updateContacted, updateContactedRow, clientRows(clients, touched)); err != nil {
		return nil, err
	}
	if _, err := t.insert(ctx, insertContacts, insertContactRow, contacts); err != nil {
		return nil, err
	}
	return outcomes, t.dueAgain(ctx, broken)
}

func fitsKey(key []byte) bool { return len(key) > 0 && len(key) <= maxKey }

func contacted(updates []store.ContactUpdate) []identity.ClientID {
	ids := make([]identity.ClientID, len(updates))
	for i, u := range updates {
		ids[i] = u.ClientID
	}
	return sortedClients(slices.Values(ids))
}

// lockContacted locks and returns the clients among ids that exist, and the store's clock.
func (t session) lockContacted(ctx context.Context,
	ids []identity.ClientID) (map[identity.ClientID]*store.Client, int64, error) {
	clients := make(map[identity.ClientID]*store.Client, len(ids))
	var now int64
	for chunk := range slices.Chunk(ids, maxList) {
		err := t.query(ctx, t.s.sql(lockContacted, len(chunk)), clientArgs(chunk), func(r row) error {
			c, err := scanClient(r, &now)
			if err == nil {
				clients[c.ID] = c
			}
			return err
		})
		if err != nil {
			return nil, 0, err
		}
	}
	if now != 0 {
		return clients, now, nil
	}
	now, err := t.now(ctx)
	return clients, now, err
}

// register inserts the clients that are missing, adds them to clients, and returns which it made.
func (t session) register(ctx context.Context, updates []store.ContactUpdate,
	clients map[identity.ClientID]*store.Client, now int64) (map[identity.ClientID]bool, error) {
	first := make(map[identity.ClientID]store.ContactUpdate)
	for _, u := range updates {
		if _, ok := first[u.ClientID]; !ok && clients[u.ClientID] == nil && fitsKey(u.Key) {
			first[u.ClientID] = u
		}
	}
	if len(first) == 0 {
		return nil, nil
	}
	ids := sortedClients(maps.Keys(first))
	rows := make([][]any, len(ids))
	for i, id := range ids {
		rows[i] = []any{id[:], first[id].Key, now, now}
	}
	inserted, err := t.insert(ctx, insertClients, insertClientRow, rows)
	if err != nil {
		return nil, err
	}
	if inserted < int64(len(ids)) {
		return nil, errRaced
	}
	made, _, err := t.lockContacted(ctx, ids)
	if err != nil {
		return nil, err
	}
	registered := make(map[identity.ClientID]bool)
	var labels [][]any
	for i := range ids {
		c := made[ids[i]]
		if c == nil {
			return nil, fmt.Errorf("client %v vanished while it was registered", ids[i])
		}
		clients[c.ID] = c
		registered[c.ID] = true
		for _, label := range sortedKeys(fittingLabels(first[c.ID].ClaimedLabels)) {
			labels = append(labels, []any{ids[i][:], reportedBy, label})
		}
	}
	_, err = t.insert(ctx, insertLabels, insertLabelRow, labels)
	return registered, err
}

// touch applies a contact to its client.
func touch(c *store.Client, u store.ContactUpdate, now int64, isNew bool) {
	at := now
	if !isNew {
		at = max(now, micros(c.LastContact)+1)
	}
	c.LastContact = fromMicros(at)
	c.LastContactAddress = cut(u.Address, maxAddress)
	c.LastClock = u.Clock
	c.StreamingTo = cut(u.StreamingTo, maxAddress)
}

func clientRows(clients map[identity.ClientID]*store.Client, touched map[identity.ClientID]bool) [][]any {
	rows := make([][]any, 0, len(touched))
	for _, id := range sortedClients(maps.Keys(touched)) {
		c := clients[id]
		seconds, nanos := timeArgs(c.LastClock)
		rows = append(rows, []any{
			c.ID[:], c.Key, c.Blacklisted, micros(c.FirstContact), micros(c.LastContact), c.LastContactAddress,
			seconds, nanos, c.StreamingTo,
		})
	}
	return rows
}

// ListContacts returns contacts of a client that are later than a time, in order.
func (s *Store) ListContacts(ctx context.Context, id identity.ClientID, after time.Time,
	limit int) (contacts []store.Contact, err error) {
	defer s.op("ListContacts", &err)()
	err = s.read().query(ctx, s.sql(listContacts), []any{id[:], micros(after), limit}, func(r row) error {
		var c store.Contact
		var at, sent, received int64
		err := r.Scan(&at, &sent, &received, &c.Address)
		c.Time, c.SentNonce, c.ReceivedNonce = fromMicros(at), uint64(sent), uint64(received)
		contacts = append(contacts, c)
		return err
	})
	return contacts, err
}
