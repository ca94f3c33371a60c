package agent

import (
	"cmp"
	"slices"
	"time"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Classes of the outbox, in the order in which they leave.
const (
	classHigh = iota
	classMedium
	classLow
	classes
)

func classOf(p fspb.Message_Priority) int {
	switch p {
	case fspb.Message_HIGH:
		return classHigh
	case fspb.Message_LOW:
		return classLow
	}
	return classMedium
}

// parcel is one message on its way to the server, serialized.
type parcel struct {
	seq        uint64 // order of admission
	class      int
	size       int
	raw        []byte // nil while it is on disk only
	volatile   bool   // is not worth a place on disk
	kept       bool   // is on disk too, under its seq
	background bool
	accepted   func() // may be nil; must not block
	queued     time.Time
	failures   int       // contacts that ended over it, alone
	convicted  bool      // a contact without it succeeded since it failed alone
	retry      time.Time // set aside until then
}

type class struct {
	queued   []*parcel     // in order of seq
	held     load          // queued, in flight and aside
	loose    load          // those of them that are not on disk
	resident int           // bytes of those on disk that are in memory too
	room     chan struct{} // closed and replaced when there is room; nil while nobody waits
}

// load is a number of messages and of their bytes.
type load struct{ messages, bytes int }

func (l *load) add(size int) { l.messages, l.bytes = l.messages+1, l.bytes+size }

func (l *load) remove(size int) { l.messages, l.bytes = l.messages-1, l.bytes-size }

func (c *class) admitsLoose() bool {
	return c.loose.messages < maxClassMessages && c.loose.bytes < maxClassBytes
}

// restore puts a parcel where its sequence number belongs. What is on disk stays in memory only as far as there is room.
func (c *class) restore(p *parcel) {
	if p.kept && p.raw != nil && c.resident > maxResidentBytes {
		c.resident -= p.size
		p.raw = nil
	}
	at, _ := slices.BinarySearchFunc(c.queued, p.seq, func(q *parcel, seq uint64) int {
		return cmp.Compare(q.seq, seq)
	})
	c.queued = slices.Insert(c.queued, at, p)
}
