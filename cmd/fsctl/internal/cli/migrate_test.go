package cli_test

import (
	"fmt"
	"path/filepath"
	"testing"
)

func TestMigrateSQLite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	components := writeTemp(t, "components.config", fmt.Sprintf("sqlite_database_path: %q", path))
	status := func(args ...string) map[string]any {
		r := run(t, "", append([]string{"migrate", "-o", "json", "--components_config", components}, args...)...)
		r.want(t, 0)
		return decode[map[string]any](t, r)
	}
	empty := status("--status")
	if empty["version_before"] != 0.0 || empty["version_after"] != 0.0 || empty["usable"] != false {
		t.Errorf("status of no database: %v", empty)
	}
	first := status()
	if first["version_before"] != 0.0 || first["version_after"] != empty["newest_version"] || first["usable"] != true {
		t.Errorf("migration of no database: %v", first)
	}
	if again := status(); again["version_before"] != first["version_after"] || again["version_after"] != first["version_after"] {
		t.Errorf("second migration: %v, want no change from %v", again, first)
	}
}

func TestMigrateErrors(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"bad path":    {`sqlite_database_path: "/nonexistent/db"`, "/nonexistent"},
		"bad DSN":     {`mysql_data_source_name: "hello"`, "mysql_data_source_name"},
		"unreachable": {`mysql_data_source_name: "u@tcp(127.0.0.1:1)/db"`, "127.0.0.1:1"},
		"bad text":    {`mysql: "hello"`, "components.config:1"},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, "", "migrate", "--components_config", writeTemp(t, "components.config", c.text)).wantError(t, 1, c.want)
		})
	}
}
