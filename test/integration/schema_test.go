package integration_test

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"

	_ "github.com/go-sql-driver/mysql"

	"github.com/farspeak/farspeak/db"
	"github.com/farspeak/farspeak/internal/testmysql"
	"github.com/farspeak/farspeak/test/harness"
)

// On a database of the wrong version no daemon starts; each names the remedy. (G-49)
func TestWrongSchema(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change string // "" leaves the database as it was made: without a schema
		want   string
	}{
		{"empty database", "", "fsctl migrate --components_config"},
		{"older schema", fmt.Sprintf("DELETE FROM %s WHERE version_id >= %d", db.VersionTable, db.OldestVersion), "fsctl migrate --components_config"},
		{"newer schema", fmt.Sprintf("INSERT INTO %s (version_id, is_applied) VALUES (99999, TRUE)", db.VersionTable), "install the release"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dsn := testmysql.NewDatabase(t)
			site := harness.NewSite(t, programs)
			if c.change == "" {
				site.Components.SqliteDatabasePath, site.Components.MysqlDataSourceName = "", dsn
			} else {
				site.UseMySQL(dsn)
				execute(t, dsn, c.change)
			}
			for _, daemon := range []*harness.Process{site.LaunchServer("fs-server", nil).Process, site.LaunchAdmin("fs-admin", nil).Process} {
				if err := daemon.WaitEnd(promptly); err == nil {
					t.Errorf("%s ended without an error", daemon.Name)
				}
				if !strings.Contains(daemon.Log(), c.want) {
					t.Errorf("%s does not say %q:\n%s", daemon.Name, c.want, daemon.Log())
				}
			}
		})
	}
}

func execute(t *testing.T, dsn, statement string) {
	t.Helper()
	pool, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}
