package mysql_test

import (
	"os"
	"strings"
	"testing"
	"time"

	driversql "github.com/go-sql-driver/mysql"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/mysql"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	"github.com/farspeak/farspeak/internal/testmysql"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// TestGrants runs what each program does with the rights of db/grants.sql, and what it must not be able to do.
func TestGrants(t *testing.T) {
	dsn := testmysql.NewDatabase(t)
	users := map[string]string{}
	for _, user := range []string{"fs_migrate", "fs_server", "fs_admin"} {
		users[user] = newUser(t, dsn, user)
	}
	first, rest := grants(t, dsn)
	administer(t, dsn, first)
	if _, err := openStore(t, mysql.Config{DSN: users["fs_migrate"]}).Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	administer(t, dsn, rest...)
	g := &granted{T: t}
	server := openStore(t, mysql.Config{DSN: users["fs_server"]})
	g.server(server)
	g.admin(openStore(t, mysql.Config{DSN: users["fs_admin"]}), register(t, server))
}

// grants reads the statements of grants.sql for a database: the one that comes before the migration, and the others.
func grants(t *testing.T, dsn string) (first string, rest []string) {
	t.Helper()
	text, err := os.ReadFile("../../../db/grants.sql")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := driversql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	var statements []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "GRANT ") {
			statements = append(statements, strings.ReplaceAll(strings.TrimSpace(line), "ON fleetspeak.", "ON "+cfg.DBName+"."))
		}
	}
	if len(statements) < 30 {
		t.Fatalf("%d grants found", len(statements))
	}
	return statements[0], statements[1:]
}

type granted struct{ *testing.T }

func (g *granted) allowed(what string, err error) {
	g.Helper()
	if err != nil {
		g.Errorf("%s: %v", what, err)
	}
}

func (g *granted) denied(what string, err error) {
	g.Helper()
	if err == nil || !strings.Contains(err.Error(), "denied") {
		g.Errorf("%s: %v, want it denied", what, err)
	}
}

func (g *granted) server(s *sqlbase.Store) {
	ctx := g.Context()
	id := register(g.T, s)
	m := newMessage(id)
	ref := store.MessageRef{ClientID: id, ID: identity.MessageID(m.MessageId)}
	backlog := store.BacklogMessage{ID: identity.NewMessageID(), Service: "a", Message: m}
	check := func(what string) func(any, error) {
		return func(_ any, err error) { g.Helper(); g.allowed(what, err) }
	}
	g.allowed("CheckSchema", s.CheckSchema(ctx))
	check("GetClients")(s.GetClients(ctx, []identity.ClientID{id}))
	check("SetClientInfo")(s.SetClientInfo(ctx, []store.ClientInfo{{ClientID: id, Labels: []string{"a"}, Services: []store.ClientService{{Name: "s"}}}}))
	check("SetClientInfo")(s.SetClientInfo(ctx, []store.ClientInfo{{ClientID: id}}))
	g.allowed("EndSessions", s.EndSessions(ctx, []store.SessionEnd{{ClientID: id, StreamingTo: "s"}}))
	check("InsertMessages")(s.InsertMessages(ctx, []*fspb.Message{m}))
	check("DueMessages")(s.DueMessages(ctx, []store.DueRequest{{ClientID: id, Limit: 1}}))
	g.allowed("RecordAttempts", s.RecordAttempts(ctx, []store.MessageRef{ref}, time.Minute))
	check("AckMessages")(s.AckMessages(ctx, []store.Ack{{MessageRef: ref}}))
	check("InsertMessages again")(s.InsertMessages(ctx, []*fspb.Message{m}))
	check("AddBacklog")(s.AddBacklog(ctx, []store.BacklogMessage{backlog}, 0, 10))
	check("ClaimBacklog")(s.ClaimBacklog(ctx, "o", []string{"a"}, 10, time.Minute))
	g.allowed("FinishBacklog", s.FinishBacklog(ctx, "o", []store.BacklogOutcome{{Service: "a", ID: backlog.ID, Dead: true}}))
	g.allowed("ReleaseBacklog", s.ReleaseBacklog(ctx, "o"))
	check("AddResourceUsage")(s.AddResourceUsage(ctx, []store.ResourceUsage{{ClientID: id}}))
	check("Heartbeat")(s.Heartbeat(ctx, store.ServerInfo{ID: "s"}))
	g.allowed("AddTicketKey", s.AddTicketKey(ctx, store.TicketKey{}))
	for range 3 {
		check("Prune")(s.Prune(ctx, everything(time.Nanosecond), 100))
	}
	g.denied("PutFile", s.PutFile(ctx, "s", "n", strings.NewReader("x")))
	g.denied("CreateBroadcast", s.CreateBroadcast(ctx, &store.Broadcast{ID: identity.NewBroadcastID()}))
}

// everything is a retention that keeps nothing for longer.
func everything(keep time.Duration) store.Retention {
	return store.Retention{
		Contacts: keep, Results: keep, DeadLetters: keep, ResourceUsage: keep, Broadcasts: keep, Servers: keep,
		TicketKeys: keep, Clients: keep,
	}
}

func (g *granted) admin(s *sqlbase.Store, id identity.ClientID) {
	ctx := g.Context()
	m := newMessage(id)
	request := newMessage(id)
	request.MessageType, request.Source.ServiceName = "RekeyRequest", "system"
	check := func(what string) func(any, error) {
		return func(_ any, err error) { g.Helper(); g.allowed(what, err) }
	}
	b := &store.Broadcast{ID: identity.NewBroadcastID(), Group: "g", Limit: 5, RequiredLabels: []store.Label{{Service: "client", Label: "l"}}}
	g.allowed("CheckSchema", s.CheckSchema(ctx))
	check("ListClients")(s.ListClients(ctx, id, 10))
	check("ListClientServices")(s.ListClientServices(ctx, id))
	check("ListContacts")(s.ListContacts(ctx, id, time.Time{}, 10))
	check("BlacklistClient")(s.BlacklistClient(ctx, id))
	for range 2 {
		check("InsertMessages")(s.InsertMessages(ctx, []*fspb.Message{m, newMessage(id), request}))
	}
	check("AddBacklog")(s.AddBacklog(ctx, []store.BacklogMessage{{ID: identity.NewMessageID(), Service: "a", Message: m}}, 0, 10))
	check("MessageStatus")(s.MessageStatus(ctx, identity.MessageID(m.MessageId)))
	check("DeletePending")(s.DeletePending(ctx, []identity.ClientID{id}, "x"))
	check("InsertMessages after that")(s.InsertMessages(ctx, []*fspb.Message{m}))
	check("PendingIDs")(s.PendingIDs(ctx, []identity.ClientID{id}, nil, 10))
	check("PendingMessages")(s.PendingMessages(ctx, []identity.MessageID{identity.MessageID(m.MessageId)}, true))
	check("BacklogStatus")(s.BacklogStatus(ctx))
	check("ListDeadLetters")(s.ListDeadLetters(ctx, "a", identity.MessageID{}, 10, true))
	check("RetryDeadLetters")(s.RetryDeadLetters(ctx, "a", []identity.MessageID{identity.NewMessageID()}))
	g.allowed("CreateBroadcast", s.CreateBroadcast(ctx, b))
	check("ActiveBroadcasts")(s.ActiveBroadcasts(ctx))
	g.allowed("DisableBroadcasts", s.DisableBroadcasts(ctx, []identity.BroadcastID{b.ID}))
	g.allowed("PutFile", s.PutFile(ctx, "s", "n", strings.NewReader("x")))
	g.allowed("PutFile again", s.PutFile(ctx, "s", "n", strings.NewReader("y")))
	g.allowed("DeleteFile", s.DeleteFile(ctx, "s", "n"))
	check("FetchResourceUsage")(s.FetchResourceUsage(ctx, id, time.Now(), time.Now(), -1, 10))
	check("ListServers")(s.ListServers(ctx, time.Hour))
	_, err := s.TicketKeys(ctx, 1)
	g.denied("TicketKeys", err)
	_, err = s.RecordContacts(ctx, []store.ContactUpdate{{ClientID: id, Key: id.Bytes()}})
	g.denied("RecordContacts", err)
	keep := everything(time.Nanosecond)
	keep.Clients = 0
	for range 3 {
		check("Prune")(s.Prune(ctx, keep, 100))
	}
}
