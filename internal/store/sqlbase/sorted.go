package sqlbase

import (
	"bytes"
	"iter"
	"maps"
	"slices"

	"github.com/farspeak/farspeak/internal/identity"
)

func compareClients(a, b identity.ClientID) int   { return bytes.Compare(a[:], b[:]) }
func compareMessages(a, b identity.MessageID) int { return bytes.Compare(a[:], b[:]) }

// sortedClients returns each client once, in the order in which rows are locked.
func sortedClients(ids iter.Seq[identity.ClientID]) []identity.ClientID {
	return slices.Compact(slices.SortedFunc(ids, compareClients))
}

// sortedMessages returns each message once, in the order in which rows are locked.
func sortedMessages(ids iter.Seq[identity.MessageID]) []identity.MessageID {
	return slices.Compact(slices.SortedFunc(ids, compareMessages))
}

// sortedKeys returns the keys of a map in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
