package store

import "time"

// Retention says how long, or how many, rows that would pile up are kept (G-22). Zero keeps them for ever, or all.
type Retention struct {
	Contacts      time.Duration // contact history
	Results       time.Duration // results of messages: also how long an ID is remembered, so that it is not taken twice
	DeadLetters   time.Duration // messages that failed for good, with their payload
	ResourceUsage time.Duration // reports of resource usage
	Broadcasts    time.Duration // broadcasts that are no longer active, from their creation
	Servers       time.Duration // servers without a heartbeat
	TicketKeys    time.Duration // TLS session ticket keys
	Clients       time.Duration // clients without a contact, with all that belongs to them; blacklisted ones stay

	// Clients make dead letters as fast as services refuse what they send, so that an age is no bound: past one of these the
	// oldest go before their time.
	MaxDeadLetters     int64
	MaxDeadLetterBytes int64
}

// DefaultRetention is what applies when nothing is configured. Clients are kept.
func DefaultRetention() Retention {
	const day = 24 * time.Hour
	return Retention{
		Contacts:      14 * day,
		Results:       14 * day,
		DeadLetters:   14 * day,
		ResourceUsage: 14 * day,
		Broadcasts:    90 * day,
		Servers:       day,
		TicketKeys:    3 * day,

		MaxDeadLetters:     200_000,
		MaxDeadLetterBytes: 8 << 30,
	}
}
