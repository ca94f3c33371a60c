package sqlbase

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	insertBroadcast = `INSERT INTO broadcasts (broadcast_id, source, destination, message_type, group_name,
		expiration_us, expiration_seconds, expiration_nanos, data, message_limit, sent, created_us) VALUES {rows}`
	insertBroadcastRow = `(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, {now})`

	insertBroadcastLabels   = `INSERT INTO broadcast_labels (broadcast_id, service, label) VALUES {rows} {ignore service}`
	insertBroadcastLabelRow = `(?, ?, ?)`

	// isActive is when a broadcast may be sent.
	isActive = `sent < message_limit AND (expiration_us IS NULL OR expiration_us > {now})`

	// activeBroadcasts scans broadcasts, which retention keeps small.
	activeBroadcasts = `SELECT broadcast_id, source, destination, message_type, group_name, expiration_seconds,
		expiration_nanos, data, data IS NULL, message_limit, sent FROM broadcasts WHERE `

	// broadcastLabels reads ranges of PRIMARY.
	broadcastLabels = `SELECT broadcast_id, service, label FROM broadcast_labels {index PRIMARY}
		WHERE broadcast_id IN ({list}) ORDER BY broadcast_id, service, label`

	// lockGroup locks one range of by_group.
	lockGroup = `SELECT broadcast_id FROM broadcasts {index by_group}
		WHERE group_name = ? AND source = ? AND destination = ? AND broadcast_id <> ? AND message_limit > 0
		ORDER BY broadcast_id {lock}`

	// disableBroadcasts changes rows by ranges of PRIMARY.
	disableBroadcasts = `UPDATE broadcasts {index PRIMARY} SET message_limit = 0 WHERE broadcast_id IN ({list})`
)

// CreateBroadcast stores a broadcast. store.ErrConflict says that its ID is taken. One with a group ends active ones of the
// same group, source, destination and set of labels. A limit above store.UnlimitedBroadcast is none.
func (s *Store) CreateBroadcast(ctx context.Context, b *store.Broadcast) (err error) {
	defer s.op("CreateBroadcast", &err)()
	for kind, name := range map[string]string{
		"source": b.Source, "destination": b.Destination, "message type": b.Type, "group": b.Group,
	} {
		if err := checkName(kind, name); err != nil {
			return err
		}
	}
	if len(b.Data) > store.MaxMessageBytes {
		return fmt.Errorf("%w: data of %d bytes, at most %d", store.ErrInvalid, len(b.Data), store.MaxMessageBytes)
	}
	labels, err := labelRows(b)
	if err != nil {
		return err
	}
	seconds, nanos := timeArgs(b.Expiration)
	row := []any{
		b.ID[:], b.Source, b.Destination, b.Type, b.Group, expirationArg(b.Expiration), seconds, nanos,
		payload{data: b.Data}.dataArg(), int64(min(b.Limit, math.MaxInt64)),
	}
	return s.write(ctx, func(t session) error {
		// The insert comes first: of two that replace each other at once, one then sees the other.
		if _, err := t.insert(ctx, insertBroadcast, insertBroadcastRow, [][]any{row}); err != nil {
			return err
		}
		if _, err := t.insert(ctx, insertBroadcastLabels, insertBroadcastLabelRow, labels); err != nil {
			return err
		}
		if b.Group == "" {
			return nil
		}
		return t.replaceGroup(ctx, b)
	})
}

// expirationArg is when a broadcast ends, by the store's clock; NULL when never. What no clock reaches is never, and what
// is before 1970 is past.
func expirationArg(t *timestamppb.Timestamp) any {
	const reach = math.MaxInt64 / 1_000_000
	switch seconds := t.GetSeconds(); {
	case t == nil || seconds >= reach:
		return nil
	case seconds < 0:
		return int64(0)
	default:
		return seconds*1_000_000 + int64(t.GetNanos())/1000
	}
}

func labelRows(b *store.Broadcast) ([][]any, error) {
	var rows [][]any
	for _, label := range b.RequiredLabels {
		if err := checkName("label's service", label.Service); err != nil {
			return nil, err
		}
		if err := checkName("label", label.Label); err != nil {
			return nil, err
		}
		rows = append(rows, []any{b.ID[:], label.Service, label.Label})
	}
	return rows, nil
}

// replaceGroup disables the broadcasts that b takes the place of.
func (t session) replaceGroup(ctx context.Context, b *store.Broadcast) error {
	labels := make(map[identity.BroadcastID][]store.Label)
	args := []any{b.Group, b.Source, b.Destination, b.ID[:]}
	err := t.query(ctx, t.s.sql(lockGroup), args, func(r row) error {
		var id identity.BroadcastID
		err := r.Scan(fixed(id[:]))
		labels[id] = nil
		return err
	})
	if err != nil {
		return err
	}
	if err := t.addBroadcastLabels(ctx, labels); err != nil {
		return err
	}
	wanted := labelSet(b.RequiredLabels)
	var replaced []identity.BroadcastID
	for id, have := range labels {
		if maps.Equal(wanted, labelSet(have)) {
			replaced = append(replaced, id)
		}
	}
	return t.disable(ctx, replaced)
}

func labelSet(labels []store.Label) map[store.Label]bool {
	set := make(map[store.Label]bool, len(labels))
	for _, label := range labels {
		set[label] = true
	}
	return set
}

// ActiveBroadcasts returns the broadcasts that are not expired and were not sent to as many clients as they may be.
func (s *Store) ActiveBroadcasts(ctx context.Context) (list []*store.Broadcast, err error) {
	defer s.op("ActiveBroadcasts", &err)()
	t := s.read()
	labels := make(map[identity.BroadcastID][]store.Label)
	err = t.query(ctx, s.sql(activeBroadcasts+isActive), nil, func(r row) error {
		b, err := scanBroadcast(r)
		if err == nil {
			list = append(list, b)
			labels[b.ID] = nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := t.addBroadcastLabels(ctx, labels); err != nil {
		return nil, err
	}
	for _, b := range list {
		b.RequiredLabels = labels[b.ID]
	}
	return list, nil
}

func scanBroadcast(r row) (*store.Broadcast, error) {
	var b store.Broadcast
	var expiration nullTime
	var absent bool
	err := r.Scan(fixed(b.ID[:]), &b.Source, &b.Destination, &b.Type, &b.Group, &expiration.seconds, &expiration.nanos,
		&b.Data, &absent, &b.Limit, &b.Sent)
	b.Expiration = expiration.timestamp()
	if !absent {
		b.Data = present(b.Data)
	}
	return &b, err
}

// addBroadcastLabels reads the labels of the broadcasts that are keys.
func (t session) addBroadcastLabels(ctx context.Context, labels map[identity.BroadcastID][]store.Label) error {
	for chunk := range slices.Chunk(slices.Collect(maps.Keys(labels)), maxList) {
		err := t.query(ctx, t.s.sql(broadcastLabels, len(chunk)), broadcastArgs(chunk), func(r row) error {
			var id identity.BroadcastID
			var label store.Label
			err := r.Scan(fixed(id[:]), &label.Service, &label.Label)
			labels[id] = append(labels[id], label)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func broadcastArgs(ids []identity.BroadcastID) []any {
	args := make([]any, len(ids))
	for i := range ids {
		args[i] = ids[i][:]
	}
	return args
}

// DisableBroadcasts ends broadcasts at once. IDs that are not known are ignored.
func (s *Store) DisableBroadcasts(ctx context.Context, ids []identity.BroadcastID) (err error) {
	defer s.op("DisableBroadcasts", &err)()
	if len(ids) == 0 {
		return nil
	}
	return s.write(ctx, func(t session) error { return t.disable(ctx, slices.Clone(ids)) })
}

func (t session) disable(ctx context.Context, ids []identity.BroadcastID) error {
	slices.SortFunc(ids, func(a, b identity.BroadcastID) int { return slices.Compare(a[:], b[:]) })
	for chunk := range slices.Chunk(ids, maxList) {
		if _, err := t.exec(ctx, t.s.sql(disableBroadcasts, len(chunk)), broadcastArgs(chunk)...); err != nil {
			return err
		}
	}
	return nil
}
