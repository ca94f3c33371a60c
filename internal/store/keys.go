package store

import "time"

// TicketKey is a key for TLS session tickets that all servers share.
type TicketKey struct {
	ID      [16]byte // random
	Key     [32]byte
	Created time.Time // by the store's clock; set by the store
}
