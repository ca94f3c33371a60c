package mysql_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/mysql"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	"github.com/farspeak/farspeak/internal/testmysql"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// explained is a database whose statements are looked at.
type explained struct {
	*testing.T
	ctx  context.Context
	s    *sqlbase.Store
	raw  *sql.DB
	sent *recorder

	small    bool // the tables are almost empty
	clients  []identity.ClientID
	messages []*fspb.Message
	backlog  []store.BacklogMessage
}

// TestHotStatementsUseTheirIndexes holds the plans of what the hot methods send: each reads ranges of an index and sorts
// nothing, over full tables as over almost empty ones, where a planner likes to scan, and a scan locks the table (gaps.md
// H, G-21).
func TestHotStatementsUseTheirIndexes(t *testing.T) {
	for _, size := range []int{5, 3000} {
		t.Run(fmt.Sprintf("%d clients", size), func(t *testing.T) {
			e := newExplained(t)
			e.fill(size)
			for name, do := range e.hot(min(size, 100)) {
				t.Run(name, func(t *testing.T) {
					for _, s := range e.sent.record(do) {
						e.explain(t, s)
					}
				})
			}
		})
	}
}

func newExplained(t *testing.T) *explained {
	t.Helper()
	dsn := testmysql.NewDatabase(t)
	c, err := mysql.NewConnector(dsn)
	if err != nil {
		t.Fatal(err)
	}
	e := &explained{T: t, ctx: t.Context(), sent: &recorder{Connector: c}}
	pool := sql.OpenDB(e.sent)
	e.s, err = sqlbase.New(sqlbase.Config{Dialect: mysql.Dialect(), Writer: pool, Reader: pool, MaxPendingPerClient: 1000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.s.Close() })
	e.raw = sql.OpenDB(c)
	t.Cleanup(func() { e.raw.Close() })
	_, err = e.s.Migrate(e.ctx)
	e.must(err)
	return e
}

func (e *explained) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *explained) contacts(ids []identity.ClientID) {
	var updates []store.ContactUpdate
	for _, id := range ids {
		updates = append(updates, store.ContactUpdate{ClientID: id, Key: id.Bytes(), ClaimedLabels: []string{"a", "b"}, StreamingTo: "s"})
	}
	_, err := e.s.RecordContacts(e.ctx, updates)
	e.must(err)
}

func (e *explained) fill(size int) {
	e.small = size < 100
	for range size {
		e.clients = append(e.clients, identity.NewClientID())
	}
	for range 2 {
		e.contacts(e.clients)
	}
	for range 2 {
		var list []*fspb.Message
		for _, id := range e.clients {
			list = append(list, newMessage(id))
		}
		_, err := e.s.InsertMessages(e.ctx, list)
		e.must(err)
		e.messages = list
	}
	var infos []store.ClientInfo
	var results []store.ServiceResult
	var usage []store.ResourceUsage
	for i, id := range e.clients {
		infos = append(infos, store.ClientInfo{ClientID: id, Labels: []string{"x"}, Services: []store.ClientService{{Name: "s"}}})
		m := newMessage(id)
		e.backlog = append(e.backlog, store.BacklogMessage{ID: identity.MessageID(m.MessageId), Service: []string{"a", "b", "c"}[i%3], Message: m})
		m = newMessage(id)
		results = append(results, store.ServiceResult{ID: identity.MessageID(m.MessageId), Message: m, Service: "a", Failed: true})
		usage = append(usage, store.ResourceUsage{ClientID: id})
	}
	_, err := e.s.SetClientInfo(e.ctx, infos)
	e.must(err)
	_, err = e.s.AddBacklog(e.ctx, e.backlog, 0, 0)
	e.must(err)
	e.must(e.s.RecordServiceResults(e.ctx, results))
	_, err = e.s.AddResourceUsage(e.ctx, usage)
	e.must(err)
	b := &store.Broadcast{ID: identity.NewBroadcastID(), Source: "s", Limit: 1 << 40}
	e.must(e.s.CreateBroadcast(e.ctx, b))
	_, err = e.s.AssignBroadcast(e.ctx, b.ID, e.clients, newMessage, time.Hour)
	e.must(err)
	for _, table := range []string{
		"clients", "client_labels", "client_services", "client_contacts", "client_messages", "message_results",
		"service_backlog", "dead_letters", "resource_usage", "broadcast_sent",
	} {
		rows, err := e.raw.QueryContext(e.ctx, "ANALYZE TABLE "+table)
		e.must(err)
		e.must(rows.Close())
	}
}

func newMessage(to identity.ClientID) *fspb.Message {
	return &fspb.Message{
		MessageId: identity.NewMessageID().Bytes(), MessageType: "Task", Source: &fspb.Address{ServiceName: "backend"},
		Destination: &fspb.Address{ClientId: to.Bytes(), ServiceName: "service"}, Data: &anypb.Any{Value: make([]byte, 200)},
	}
}

// hot are the methods that run for every contact, message or broadcast, each on n clients.
func (e *explained) hot(n int) map[string]func() {
	clients, messages, backlog := e.clients[:n], e.messages[:n], e.backlog[:n]
	var refs []store.MessageRef
	var acks []store.Ack
	var ends []store.SessionEnd
	var requests []store.DueRequest
	var outcomes []store.BacklogOutcome
	for i, m := range messages {
		refs = append(refs, store.MessageRef{ClientID: clients[i], ID: identity.MessageID(m.MessageId)})
		acks = append(acks, store.Ack{MessageRef: refs[i]})
		ends = append(ends, store.SessionEnd{ClientID: clients[i], StreamingTo: "s", Broken: i%2 == 0})
		requests = append(requests, store.DueRequest{ClientID: clients[i], Limit: 10, Services: [][]string{nil, {"a"}, {"a", "service"}}[i%3]})
		outcomes = append(outcomes, store.BacklogOutcome{
			Service: backlog[i].Service, ID: backlog[i].ID, Done: i%3 == 0, Keep: true, Dead: i%3 == 1, RetryIn: time.Second,
		})
	}
	check := func(_ any, err error) { e.Helper(); e.must(err) }
	rekey := newMessage(clients[0])
	rekey.MessageType, rekey.Source.ServiceName = "RekeyRequest", "system"
	return map[string]func(){
		"GetClients":     func() { check(e.s.GetClients(e.ctx, clients)) },
		"RecordContacts": func() { e.contacts(append(slices.Clone(clients), identity.NewClientID())) },
		"SetClientInfo": func() {
			check(e.s.SetClientInfo(e.ctx, []store.ClientInfo{{ClientID: clients[0], Labels: []string{"new"}}, {ClientID: clients[1]}}))
		},
		"EndSessions": func() { e.must(e.s.EndSessions(e.ctx, ends)) },
		"InsertMessages": func() {
			check(e.s.InsertMessages(e.ctx, append(slices.Clone(messages), newMessage(clients[1]), rekey)))
		},
		"InsertAlone": func() {
			for range 2 { // the first may count the queue
				check(e.s.InsertMessages(e.ctx, []*fspb.Message{newMessage(clients[0])}))
			}
		},
		"HandoverKey": func() { check(e.s.HandoverKey(e.ctx, "h:1")) },
		"DueMessages": func() { check(e.s.DueMessages(e.ctx, requests)) },
		"DueClients": func() {
			ids, _, err := e.s.DueClients(e.ctx, 0, 3)
			check(ids, err)
		},
		"RecordAttempts": func() { e.must(e.s.RecordAttempts(e.ctx, refs, time.Hour)) },
		"ReturnMessages": func() { e.must(e.s.ReturnMessages(e.ctx, refs, time.Hour)) },
		"UndoAttempts":   func() { e.must(e.s.UndoAttempts(e.ctx, refs)) },
		"AckMessages": func() {
			check(e.s.AckMessages(e.ctx, acks[:n/2]))
			check(e.s.AckMessages(e.ctx, acks[:n/2+1])) // most are completed
		},
		"Backlog": func() {
			check(e.s.AddBacklog(e.ctx, backlog, 0, 0))
			check(e.s.ClaimBacklog(e.ctx, "owner", []string{"a", "b"}, 500, time.Hour))
			e.must(e.s.FinishBacklog(e.ctx, "owner", outcomes))
			e.must(e.s.ReleaseBacklog(e.ctx, "owner"))
		},
		"Unserved": func() {
			check(e.s.AddBacklog(e.ctx, backlog, 0, 0))
			check(e.s.FailUnserved(e.ctx, "c", 0, "nobody has it", 100))
		},
		"Broadcasts": func() {
			b := &store.Broadcast{ID: identity.NewBroadcastID(), Source: "s", Group: "g", Limit: 1 << 40}
			e.must(e.s.CreateBroadcast(e.ctx, b))
			for range 2 {
				check(e.s.AssignBroadcast(e.ctx, b.ID, clients, newMessage, time.Hour))
			}
		},
		"Admin": func() {
			check(e.s.PendingIDs(e.ctx, clients, nil, 10))
			check(e.s.PendingIDs(e.ctx, clients, &refs[0].ID, 10))
			check(e.s.PendingMessages(e.ctx, []identity.MessageID{refs[0].ID, refs[n-1].ID}, true))
			check(e.s.PendingCount(e.ctx, clients))
			check(e.s.MessageStatus(e.ctx, refs[0].ID))
			check(e.s.ListClients(e.ctx, clients[0], 10))
			check(e.s.ListClientIDs(e.ctx, clients[0], 10, true, time.Now().Add(-time.Hour)))
			check(e.s.ListContacts(e.ctx, clients[0], time.Time{}, 10))
			check(e.s.DeletePending(e.ctx, clients[n/2:], "removed"))
			check(e.s.FetchResourceUsage(e.ctx, clients[0], time.Now().Add(-time.Hour), time.Now(), -1, 10))
			check(e.s.ListDeadLetters(e.ctx, "a", identity.MessageID{}, 10, true))
			check(e.s.RetryDeadLetters(e.ctx, "a", []identity.MessageID{identity.MessageID(messages[0].MessageId)}))
		},
	}
}

// explain asks how a statement is run.
func (e *explained) explain(t *testing.T, s sentStatement) {
	t.Helper()
	if strings.HasPrefix(s.text, "INSERT") && !strings.Contains(s.text, "SELECT") {
		return // reads nothing but the keys of its rows
	}
	rows, err := e.raw.QueryContext(e.ctx, "EXPLAIN "+s.text, s.args...)
	if err != nil {
		t.Fatalf("%s: %v", short(s.text), err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, table, kind, keys, key, keyLen, ref, count, extra sql.NullString
		var selectType string
		e.must(rows.Scan(&id, &selectType, &table, &kind, &keys, &key, &keyLen, &ref, &count, &extra))
		switch {
		case selectType == "INSERT" || table.String == "" || strings.HasPrefix(table.String, "<"):
		case e.small && !locks(s.text): // a scan of a few rows that takes no locks
		case !slices.Contains([]string{"const", "eq_ref", "ref", "range", "index_subquery"}, kind.String):
			t.Errorf("%s\nreads table %s by type %s, key %s, %s rows, %s", short(s.text), table.String, kind.String, key.String, count.String, extra.String)
		case strings.Contains(extra.String, "filesort"), strings.Contains(extra.String, "temporary"):
			t.Errorf("%s\non table %s: %s", short(s.text), table.String, extra.String)
		}
	}
	e.must(rows.Err())
}

// locks says whether a statement locks the rows that it reads.
func locks(statement string) bool {
	return !strings.Contains(statement, "SELECT") || strings.Contains(statement, "FOR UPDATE") || strings.HasPrefix(statement, "DELETE")
}

func short(statement string) string {
	statement = strings.Join(strings.Fields(statement), " ")
	return strings.ReplaceAll(statement[:min(len(statement), 300)], "?,", "")
}
