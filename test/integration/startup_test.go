package integration_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
	"github.com/farspeak/farspeak/test/harness"
)

// A daemon that cannot serve says why, names the setting, and ends with an error.
func TestRefusedStart(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	for _, c := range []struct {
		name   string
		admin  bool // it is fs-admin that is started
		adjust func(*componentspb.Config)
		want   []string
	}{
		{"client port in use", false, func(c *componentspb.Config) { c.HttpsConfig.ListenAddress = address }, []string{"https_config.listen_address", address, "in use"}},
		{"notification port in use", false, func(c *componentspb.Config) { c.NotificationListenAddress = address }, []string{"notification_listen_address", address, "in use"}},
		{"metrics port in use", false, func(c *componentspb.Config) { c.StatsConfig.Address = address }, []string{"stats_config.address", address, "in use"}},
		{"health port in use", true, func(c *componentspb.Config) { c.HealthCheckConfig.ListenAddress = address }, []string{"health_check_config.listen_address", address, "in use"}},
		{"admin port in use", true, func(c *componentspb.Config) { c.AdminConfig.ListenAddress = address }, []string{"admin_config.listen_address", address, "in use"}},
		{"key of another certificate", false, func(c *componentspb.Config) { c.HttpsConfig.Key = otherKey }, []string{"https_config.key"}},
		{"no certificate", false, func(c *componentspb.Config) { c.HttpsConfig.Certificates = "" }, []string{"https_config.certificates"}},
		{"directory of the database is missing", false, func(c *componentspb.Config) { c.SqliteDatabasePath = "/nowhere/at/all.db" }, []string{"sqlite_database_path", "/nowhere/at"}},
		{"database is none", true, func(c *componentspb.Config) { c.SqliteDatabasePath = "/bin/true" }, []string{"sqlite_database_path", "/bin/true"}},
		{"database server is away", false, withDSN("user:topsecret@tcp(127.0.0.1:1)/db"), []string{"127.0.0.1:1"}},
		{"database server is away", true, withDSN("user:topsecret@tcp(127.0.0.1:1)/db"), []string{"127.0.0.1:1"}},
		{"data source that is none", true, withDSN("user:topsecret@nonsense"), []string{"mysql_data_source_name"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			site := harness.NewSite(t, programs)
			var daemon *harness.Process
			if c.admin {
				daemon = site.LaunchAdmin("fs-admin", c.adjust).Process
			} else {
				daemon = site.LaunchServer("fs-server", c.adjust).Process
			}
			if err := daemon.WaitEnd(2 * promptly); err == nil {
				t.Error("it ended without an error")
			} else if daemon.Running() {
				t.Errorf("it runs: %v", err)
			}
			log := daemon.Log()
			for _, want := range c.want {
				if !strings.Contains(log, want) {
					t.Errorf("it does not say %q:\n%s", want, log)
				}
			}
			if strings.Contains(log, "topsecret") {
				t.Errorf("it tells a password:\n%s", log)
			}
		})
	}
}

func withDSN(dsn string) func(*componentspb.Config) {
	return func(c *componentspb.Config) { c.SqliteDatabasePath, c.MysqlDataSourceName = "", dsn }
}

// otherKey belongs to no certificate of these tests.
const otherKey = `-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAaAKBggqhkjO
PQMBB6FEA0IABGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT+NC4v4a
f5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfU=
-----END EC PRIVATE KEY-----
`

// Configuration files with mistakes are refused with file, line and field; --check_config does it without starting.
func TestCheckConfig(t *testing.T) {
	t.Parallel()
	site := harness.NewSite(t, programs)
	components := filepath.Join(site.Dir, "components.config")
	services := filepath.Join(site.Dir, "services.config")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(services, "")
	good := fmt.Sprintf("sqlite_database_path: %q\nadmin_config <\n  listen_address: \"127.0.0.1:0\"\n>\n", filepath.Join(site.Dir, "farspeak.db"))
	write(components, good)
	site.Run("fs-admin", "--logtostderr", "--components_config", components, "--check_config")
	if _, err := os.Stat(filepath.Join(site.Dir, "farspeak.db")); err == nil {
		t.Error("--check_config made a database")
	}
	write(components, good+"admin_confog {}\n")
	output, err := site.TryRun("fs-admin", "--logtostderr", "--components_config", components, "--check_config")
	if err == nil {
		t.Error("an unknown field is accepted")
	}
	for _, want := range []string{"components.config:5:1", "admin_confog", "admin_config"} {
		if !strings.Contains(output, want) {
			t.Errorf("the fault is told without %q:\n%s", want, output)
		}
	}
}
