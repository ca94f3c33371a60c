package mysql_test

import (
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// TestStatementsOfMessages counts what goes to the database on the way of messages to clients, besides beginnings and ends
// of transactions: as many statements for one message as for a hundred, or fewer.
func TestStatementsOfMessages(t *testing.T) {
	e := newExplained(t)
	e.fill(100)
	for _, n := range []int{1, 100} {
		var list []*fspb.Message
		var refs []store.MessageRef
		var acks []store.Ack
		var requests []store.DueRequest
		for _, id := range e.clients[:n] {
			m := newMessage(id)
			ref := store.MessageRef{ClientID: id, ID: identity.MessageID(m.MessageId)}
			list, refs, acks = append(list, m), append(refs, ref), append(acks, store.Ack{MessageRef: ref})
			requests = append(requests, store.DueRequest{ClientID: id, Limit: 2})
		}
		check := func(_ any, err error) { e.must(err) }
		check(e.s.InsertMessages(e.ctx, list)) // counts the queues of the clients
		list = nil
		for _, id := range e.clients[:n] {
			list = append(list, newMessage(id))
		}
		for _, step := range []struct {
			name string
			want int
			do   func()
		}{
			{"InsertMessages", map[int]int{1: 2, 100: 3}[n], func() { check(e.s.InsertMessages(e.ctx, list)) }},
			{"DueMessages", 1, func() { check(e.s.DueMessages(e.ctx, requests)) }},
			{"RecordAttempts", 1, func() { e.must(e.s.RecordAttempts(e.ctx, refs, time.Hour)) }},
			{"ReturnMessages", 1, func() { e.must(e.s.ReturnMessages(e.ctx, refs, time.Hour)) }},
			{"AckMessages", 2, func() { check(e.s.AckMessages(e.ctx, acks)) }},
		} {
			if sent := e.sent.record(step.do); len(sent) != step.want {
				t.Errorf("%s of %d: %d statements, want %d", step.name, n, len(sent), step.want)
				for _, s := range sent {
					t.Log(short(s.text))
				}
			}
		}
	}
}
