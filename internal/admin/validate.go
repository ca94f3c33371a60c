package admin

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
)

// parseAll reads IDs, all of them before any is used. Empty ones, which name nobody, are left out.
func parseAll[T interface {
	comparable
	IsNil() bool
}](raw [][]byte, parse func([]byte) (T, error)) ([]T, error) {
	ids := make([]T, 0, len(raw))
	for _, b := range raw {
		id, err := parse(b)
		if err != nil {
			return nil, invalid("%v", err)
		}
		if !id.IsNil() {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func clientIDs(raw [][]byte) ([]identity.ClientID, error) {
	return parseAll(raw, identity.ClientIDFromBytes)
}

func clientID(raw []byte) (identity.ClientID, error) {
	id, err := identity.ClientIDFromBytes(raw)
	if err != nil {
		return id, invalid("%v", err)
	}
	return id, nil
}

func messageID(raw []byte) (identity.MessageID, error) {
	id, err := identity.MessageIDFromBytes(raw)
	if err != nil {
		return id, invalid("%v", err)
	}
	return id, nil
}

// unique drops repeated client IDs; the order is lost.
func unique(ids []identity.ClientID) []identity.ClientID {
	slices.SortFunc(ids, func(a, b identity.ClientID) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(ids)
}

// timestamp checks a time that a caller gave.
func timestamp(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, invalid("%s must be set", field)
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, invalid("%s: %v", field, err)
	}
	return t.AsTime(), nil
}

// wholeMicros is the first microsecond, the store's unit, that is not before t.
func wholeMicros(t time.Time) time.Time {
	return t.Add(time.Microsecond - 1).Truncate(time.Microsecond)
}
