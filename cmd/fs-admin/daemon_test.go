package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/farspeak/farspeak/internal/store/sqlbase"
	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
	settingspb "github.com/farspeak/farspeak/proto/farspeak/settings"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
	"github.com/farspeak/farspeak/test/harness"
)

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
