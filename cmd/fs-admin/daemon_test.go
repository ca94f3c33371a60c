package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/cmd/internal/database"
	"github.com/farspeak/farspeak/internal/config"
	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/notify"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	"github.com/farspeak/farspeak/internal/testmysql"
	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
	settingspb "github.com/farspeak/farspeak/proto/farspeak/settings"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
	"github.com/farspeak/farspeak/test/harness"
)

// programs is the daemon's binary.
var programs *harness.Programs

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	var err error
	if programs, err = harness.NewPrograms(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := programs.Remove(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	return testmysql.Run(m)
}

// onEachStore runs a test with a site on SQLite, and with one on MariaDB.
func onEachStore(t *testing.T, test func(t *testing.T, site *harness.Site, db *sqlbase.Store)) {
	t.Run("SQLite", func(t *testing.T) {
		site := harness.NewSite(t, programs)
		test(t, site, openStore(t, config.Store{Dialect: config.SQLite, Path: site.Components.SqliteDatabasePath}))
	})
	t.Run("MySQL", func(t *testing.T) {
		site, dsn := harness.NewSite(t, programs), testmysql.NewDatabase(t)
		cfg := config.Store{Dialect: config.MySQL, DSN: config.NewSecret(dsn), MaxOpenConnections: 4}
		if err := database.Migrate(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		site.Components.SqliteDatabasePath, site.Components.MysqlDataSourceName = "", dsn
		test(t, site, openStore(t, cfg))
	})
}

func openStore(t *testing.T, cfg config.Store) *sqlbase.Store {
	t.Helper()
	s, err := database.Open(t.Context(), cfg, database.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// server is what fs-admin sees of an fs-server: a listener for notifications, with a secret.
type server struct {
	address string
	woken   chan identity.ClientID
	refused chan identity.ClientID
	changed chan struct{}
}

const secret = "0123456789abcdef"

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{
		woken: make(chan identity.ClientID, 100), refused: make(chan identity.ClientID, 100), changed: make(chan struct{}, 100),
	}
	web := httptest.NewServer(notify.NewHandler(s, notify.Config{Secret: secret}))
	t.Cleanup(web.Close)
	s.address = web.Listener.Addr().String()
	return s
}

func (s *server) Wake(ids []identity.ClientID) {
	for _, id := range ids {
		s.woken <- id
	}
}

func (s *server) Blacklisted(ids []identity.ClientID) {
	for _, id := range ids {
		s.refused <- id
	}
}

func (s *server) BroadcastsChanged() { s.changed <- struct{}{} }

func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came in time")
		panic("unreachable")
	}
}

// TestDaemon runs the real program, makes every call, sees the notifications arrive at a server, and stops it.
func TestDaemon(t *testing.T) {
	onEachStore(t, func(t *testing.T, site *harness.Site, db *sqlbase.Store) {
		fleet := newServer(t)
		secretFile := filepath.Join(site.Dir, "notifier.secret")
		if err := os.WriteFile(secretFile, []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
		site.Components.Farspeak.Notifier = &settingspb.Notifier{SecretFile: secretFile}
		daemon := site.StartAdmin("fs-admin", nil)
		c := &caller{T: t, daemon: daemon, db: db, fleet: fleet, conn: daemon.Client(t).Conn}
		c.admin, c.control = serverpb.NewAdminClient(c.conn), controlpb.NewControlClient(c.conn)
		c.register()
		c.messages()
		c.clients()
		c.broadcasts()
		c.files()
		c.operators()
		c.watches()

		underWay, acknowledged := make(chan struct{}), make(chan int64, 1)
		go c.insertUntilRefused(underWay, acknowledged)
		receive(t, underWay)
		daemon.Terminate()
		c.checkAllStored(receive(t, acknowledged))
	})
}

// caller is a backend, and an operator.
type caller struct {
	*testing.T
	daemon  *harness.Admin
	db      *sqlbase.Store
	fleet   *server
	conn    *grpc.ClientConn
	admin   serverpb.AdminClient
	control controlpb.ControlClient
	id      identity.ClientID // a client that is connected to fleet
}

func (c *caller) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c *caller) register() {
	c.id = identity.NewClientID()
	_, err := c.db.RecordContacts(c.Context(), []store.ContactUpdate{{
		ClientID: c.id, Key: c.id.Bytes(), ClaimedLabels: []string{"linux"}, Address: "192.0.2.1:1", StreamingTo: c.fleet.address,
	}})
	c.must(err)
	_, err = c.db.Heartbeat(c.Context(), store.ServerInfo{ID: "server", Address: c.fleet.address, Version: "1"})
	c.must(err)
}

func (c *caller) message() *fspb.Message {
	return harness.ToClient(c, c.id.Bytes(), "shell", "uname")
}

func (c *caller) messages() {
	_, err := c.admin.KeepAlive(c.Context(), &fspb.EmptyMessage{})
	c.must(err)
	m := c.message()
	for range 2 {
		_, err = c.admin.InsertMessage(c.Context(), m)
		c.must(err)
		if woken := receive(c.T, c.fleet.woken); woken != c.id {
			c.Errorf("woken: %v", woken)
		}
	}
	m.Destination.ClientId = identity.NewClientID().Bytes()
	_, err = c.admin.InsertMessage(c.Context(), m)
	if status.Code(err) != codes.NotFound {
		c.Errorf("a message to nobody: %v", err)
	}
	ids := [][]byte{c.id.Bytes()}
	pending, err := c.admin.GetPendingMessages(c.Context(), &serverpb.GetPendingMessagesRequest{ClientIds: ids, WantData: true})
	c.must(err)
	count, err := c.admin.GetPendingMessageCount(c.Context(), &serverpb.GetPendingMessageCountRequest{ClientIds: ids})
	c.must(err)
	if len(pending.Messages) != 1 || pending.Messages[0].Data == nil || count.Count != 1 {
		c.Errorf("pending: %v, %v", pending, count)
	}
	_, err = c.admin.DeletePendingMessages(c.Context(), &serverpb.DeletePendingMessagesRequest{ClientIds: ids})
	c.must(err)
	answer, err := c.admin.GetMessageStatus(c.Context(), &serverpb.GetMessageStatusRequest{MessageId: m.MessageId})
	c.must(err)
	if !answer.Result.GetFailed() || answer.Result.FailedReason != "Removed by admin action." {
		c.Errorf("status: %v", answer)
	}
}

func (c *caller) clients() {
	listed, err := c.admin.ListClients(c.Context(), &serverpb.ListClientsRequest{ClientIds: [][]byte{c.id.Bytes()}})
	c.must(err)
	if len(listed.Clients) != 1 || len(listed.Clients[0].Labels) != 1 {
		c.Errorf("listed: %v", listed)
	}
	stream, err := c.admin.StreamClientIds(c.Context(), &serverpb.StreamClientIdsRequest{})
	c.must(err)
	if first, err := stream.Recv(); err != nil || identity.ClientID(first.ClientId) != c.id {
		c.Errorf("streamed: %v, %v", first, err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		c.Errorf("after the last ID: %v", err)
	}
	contacts, err := c.admin.ListClientContacts(c.Context(), &serverpb.ListClientContactsRequest{ClientId: c.id.Bytes()})
	c.must(err)
	contactStream, err := c.admin.StreamClientContacts(c.Context(), &serverpb.StreamClientContactsRequest{ClientId: c.id.Bytes()})
	c.must(err)
	if contact, err := contactStream.Recv(); err != nil || len(contacts.Contacts) != 1 || contact.Contact.ObservedAddress != "192.0.2.1:1" {
		c.Errorf("contacts: %v, %v, %v", contacts, contact, err)
	}
	usage, err := c.admin.FetchClientResourceUsageRecords(c.Context(), &serverpb.FetchClientResourceUsageRecordsRequest{
		ClientId: c.id.Bytes(), StartTimestamp: &timestamppb.Timestamp{}, EndTimestamp: timestamppb.Now(),
	})
	c.must(err)
	if len(usage.Records) != 0 {
		c.Errorf("usage: %v", usage)
	}
	_, err = c.admin.BlacklistClient(c.Context(), &serverpb.BlacklistClientRequest{ClientId: c.id.Bytes()})
	c.must(err)
	if refused := receive(c.T, c.fleet.refused); refused != c.id {
		c.Errorf("told of %v", refused)
	}
}

func (c *caller) broadcasts() {
	id := identity.NewBroadcastID().Bytes()
	_, err := c.admin.CreateBroadcast(c.Context(), &serverpb.CreateBroadcastRequest{
		Broadcast: &serverpb.Broadcast{BroadcastId: id, Source: &fspb.Address{ServiceName: "backend"}}, Limit: 3,
	})
	c.must(err)
	receive(c.T, c.fleet.changed)
	active := func() int {
		answer, err := c.admin.ListActiveBroadcasts(c.Context(), &serverpb.ListActiveBroadcastsRequest{})
		c.must(err)
		return len(answer.Broadcasts)
	}
	before := active()
	_, err = c.admin.DisableBroadcasts(c.Context(), &serverpb.DisableBroadcastsRequest{BroadcastIds: [][]byte{id}})
	c.must(err)
	receive(c.T, c.fleet.changed)
	if after := active(); before != 1 || after != 0 {
		c.Errorf("%d active, then %d; want 1, then 0", before, after)
	}
}

func (c *caller) files() {
	_, err := c.admin.StoreFile(c.Context(), &serverpb.StoreFileRequest{ServiceName: "s", FileName: "f", Data: make([]byte, 8<<20)})
	c.must(err)
	if info, err := c.db.StatFile(c.Context(), "s", "f"); err != nil || info.Size != 8<<20 {
		c.Errorf("stored: %v, %v", info, err)
	}
	_, err = c.admin.DeleteFile(c.Context(), &serverpb.DeleteFileRequest{ServiceName: "s", FileName: "f"})
	c.must(err)
	if _, err := c.db.StatFile(c.Context(), "s", "f"); !errors.Is(err, store.ErrNotFound) {
		c.Errorf("after deleting: %v", err)
	}
}

func (c *caller) operators() {
	servers, err := c.control.ListServers(c.Context(), &controlpb.ListServersRequest{})
	c.must(err)
	services, err := c.control.ListClientServices(c.Context(), &controlpb.ListClientServicesRequest{ClientId: c.id.Bytes()})
	c.must(err)
	m := c.message()
	m.Destination.ClientId = nil
	_, err = c.admin.InsertMessage(c.Context(), m)
	c.must(err)
	backlog, err := c.control.BacklogStatus(c.Context(), &controlpb.BacklogStatusRequest{})
	c.must(err)
	letters, err := c.control.ListDeadLetters(c.Context(), &controlpb.ListDeadLettersRequest{})
	c.must(err)
	retried, err := c.control.RetryDeadLetters(c.Context(), &controlpb.RetryDeadLettersRequest{Service: "s"})
	c.must(err)
	deleted, err := c.control.DeleteDeadLetters(c.Context(), &controlpb.DeleteDeadLettersRequest{Service: "s"})
	c.must(err)
	if len(servers.Servers) != 1 || len(services.Services) != 0 || len(backlog.Services) != 1 || len(letters.DeadLetters) != 0 ||
		retried.Count != 0 || deleted.Count != 0 {
		c.Errorf("%v, %v, %v, %v, %v, %v", servers, services, backlog, letters, retried, deleted)
	}
}

// watches looks at health and metrics.
func (c *caller) watches() {
	answer, err := healthpb.NewHealthClient(c.conn).Check(c.Context(), &healthpb.HealthCheckRequest{Service: "fleetspeak.server.Admin"})
	if err != nil || answer.Status != healthpb.HealthCheckResponse_SERVING {
		c.Errorf("health: %v, %v", answer, err)
	}
	metrics := c.daemon.Metrics(c)
	for _, want := range []string{
		`farspeak_admin_calls_total{code="OK",method="InsertMessage"} 3`,
		`farspeak_notifications_sent_total{form="batch"}`,
		`farspeak_batch_items_count{batch="inserts"}`,
		`farspeak_retention_rows_removed_total 0`,
		`fleetspeak_server_datastore_operations_completed_latency_count{`,
		`farspeak_build_info{`,
	} {
		if !strings.Contains(metrics, want) {
			c.Errorf("metrics lack %s", want)
		}
	}
	for _, want := range []string{"audit: method=BlacklistClient", "client=" + c.id.String()} {
		if !strings.Contains(c.daemon.Log(), want) {
			c.Errorf("the log lacks %q", want)
		}
	}
	if strings.Contains(c.daemon.Log(), "uname") {
		c.Error("the log tells a payload")
	}
}

// insertUntilRefused inserts from many callers until the daemon stops, and counts what was acknowledged. It says when the
// callers are well under way.
func (c *caller) insertUntilRefused(underWay chan<- struct{}, acknowledged chan<- int64) {
	const callers, many = 20, 300
	var count atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for {
				if _, err := c.admin.InsertMessage(context.Background(), c.message()); err != nil {
					return
				}
				if count.Add(1) == many {
					close(underWay)
				}
			}
		})
	}
	all.Wait()
	acknowledged <- count.Load()
}

// checkAllStored compares what was acknowledged up to the stop with what is stored.
func (c *caller) checkAllStored(acknowledged int64) {
	count, err := c.db.PendingCount(c.Context(), []identity.ClientID{c.id})
	c.must(err)
	if acknowledged == 0 || count < uint64(acknowledged) {
		c.Errorf("%d messages stored of %d acknowledged", count, acknowledged)
	}
	c.Logf("%d messages acknowledged before the stop, %d stored", acknowledged, count)
}

// TestSocketAndToken serves on a Unix socket and asks for a token.
func TestSocketAndToken(t *testing.T) { // G-17
	site := harness.NewSite(t, programs)
	token := filepath.Join(site.Dir, "admin.token")
	if err := os.WriteFile(token, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(site.Dir, "admin.sock")
	daemon := site.StartAdmin("fs-admin", func(c *componentspb.Config) {
		c.AdminConfig.ListenAddress = "unix:" + socket
		c.Farspeak.Admin.TokenFile = token
	})
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := serverpb.NewAdminClient(conn)
	if _, err := client.KeepAlive(t.Context(), &fspb.EmptyMessage{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without the token: %v", err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+secret)
	if _, err := client.KeepAlive(ctx, &fspb.EmptyMessage{}); err != nil {
		t.Errorf("with the token: %v", err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket: %v, %v", info, err)
	}
	if strings.Contains(daemon.Log(), secret) {
		t.Error("the log tells the token")
	}
	daemon.Terminate()
}

// A daemon that cannot serve says why and ends. G-55
func TestStartFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	for name, test := range map[string]struct {
		adjust func(*componentspb.Config)
		want   string
	}{
		"admin port in use":  {func(c *componentspb.Config) { c.AdminConfig.ListenAddress = address }, "admin_config.listen_address"},
		"stats port in use":  {func(c *componentspb.Config) { c.StatsConfig.Address = address }, "stats_config.address"},
		"health port in use": {func(c *componentspb.Config) { c.HealthCheckConfig.ListenAddress = address }, "health_check_config.listen_address"},
		"no directory":       {func(c *componentspb.Config) { c.SqliteDatabasePath = "/nonexistent/db" }, "/nonexistent"},
		"no database": {func(c *componentspb.Config) {
			c.SqliteDatabasePath, c.MysqlDataSourceName = "", "u:hidden@tcp("+harness.FreeAddress(t)+")/db"
		}, "mysql_data_source_name"},
	} {
		t.Run(name, func(t *testing.T) {
			daemon := harness.NewSite(t, programs).LaunchAdmin("fs-admin", test.adjust)
			if err := daemon.WaitEnd(time.Minute); err == nil {
				t.Error("ended without an error")
			}
			if !strings.Contains(daemon.Log(), test.want) || strings.Contains(daemon.Log(), "hidden") {
				t.Errorf("the log does not say %q, or tells a password:\n%s", test.want, daemon.Log())
			}
		})
	}
}

func TestCommandLine(t *testing.T) {
	site := harness.NewSite(t, programs)
	good := write(t, `admin_config { listen_address: "localhost:6061" } sqlite_database_path: "/nonexistent/db"`)
	bad := write(t, "admin_config { listen_address: 'localhost' }\nwalrus: 1")
	for _, test := range []struct {
		args []string
		ok   bool
		want []string
	}{
		{[]string{"--check_config", "--components_config", good}, true, []string{"the configuration is valid"}},
		{[]string{"--check_config", "--components_config", bad}, false, []string{bad + ":1:", "admin_config.listen_address", bad + ":2:", "walrus"}},
		{[]string{"--check_config", "--components_config", "/nonexistent"}, false, []string{"/nonexistent"}},
		{[]string{"--components_config", bad}, false, []string{"walrus"}},
		{[]string{"--version"}, true, []string{"fs-admin "}},
		{[]string{"--help"}, true, []string{"--components_config", "--stats_address", "--health_address", "--logtostderr"}},
		{[]string{"--walrus"}, false, []string{"walrus"}},
	} {
		output, err := site.TryRun("fs-admin", append(test.args, "--logtostderr")...)
		if (err == nil) != test.ok {
			t.Errorf("%q: %v", test.args, err)
		}
		for _, want := range test.want {
			if !strings.Contains(output, want) {
				t.Errorf("%q does not say %q:\n%s", test.args, want, output)
			}
		}
	}
}
