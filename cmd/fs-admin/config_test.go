package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/config"
)

// write makes a components file.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "components.config")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	for name, secret := range map[string]string{"token": "0123456789abcdef\n", "secret": "fedcba9876543210\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := load(write(t, `
admin_config { listen_address: "localhost:6061" }
stats_config { address: "localhost:1" } health_check_config { listen_address: "localhost:2" }
sqlite_database_path: "/tmp/farspeak.db"
farspeak {
  server { backlog_max_messages: 9 }
  admin { token_file: "`+dir+`/token" max_message_bytes: 2097152 disable_reflection: true }
  notifier { disabled: true secret_file: "`+dir+`/secret" timeout { seconds: 3 } }
}`), overrides{})
	if err != nil {
		t.Fatal(err)
	}
	a := s.adminConfig()
	if a.Token != "0123456789abcdef" || a.MaxMessageBytes != 2<<20 || a.Reflection || a.MaxBacklog != 9 || a.TLS != nil {
		t.Errorf("admin: %+v", a)
	}
	n := s.notifierConfig()
	if n.Secret != "fedcba9876543210" || n.Timeout != 3*time.Second || !n.Disabled {
		t.Errorf("notifier: %+v", n)
	}
	if s.store.Dialect != config.SQLite || s.store.Path != "/tmp/farspeak.db" {
		t.Errorf("store: %+v", s.store)
	}
}

// One file serves a machine: stats_config and health_check_config are fs-server's then.
func TestDebugAddresses(t *testing.T) {
	const (
		alone   = `admin_config { listen_address: "localhost:6061" } stats_config { address: "localhost:1" } health_check_config { listen_address: "localhost:2" }`
		machine = alone + ` https_config { listen_address: ":443" }`
		own     = ` farspeak { admin { stats_address: "localhost:3" health_check_address: "localhost:4" } }`
	)
	for _, test := range []struct {
		name, file    string
		flags         overrides
		stats, health string
	}{
		{"alone", alone, overrides{}, "localhost:1", "localhost:2"},
		{"with a server", machine, overrides{}, "", ""},
		{"with a server, own", machine + own, overrides{}, "localhost:3", "localhost:4"},
		{"alone, own", alone + own, overrides{}, "localhost:3", "localhost:4"},
		{"flags", machine + own, overrides{"localhost:5", "localhost:6"}, "localhost:5", "localhost:6"},
		{"one flag", machine, overrides{health: "localhost:6"}, "", "localhost:6"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := load(write(t, test.file), test.flags)
			if err != nil {
				t.Fatal(err)
			}
			if s.admin.StatsAddress != test.stats || s.admin.HealthAddress != test.health {
				t.Errorf("%q and %q, want %q and %q", s.admin.StatsAddress, s.admin.HealthAddress, test.stats, test.health)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, test := range map[string]struct{ file, want string }{
		"no admin_config": {`sqlite_database_path: "x"`, "admin_config"},
		"unknown field":   {"admin_config { listen_address: 'localhost:1' }\nwalrus: 1", ":2:"},
		"no database":     {"admin_config { listen_address: 'localhost:1' }\nspanner_config { project_id: 'p' }", "spanner_config"},
		"no such token":   {"admin_config { listen_address: 'localhost:1' } farspeak { admin { token_file: '/nonexistent' } }", "token_file"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := load(write(t, test.file), overrides{}); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want something about %q", err, test.want)
			}
		})
	}
	if _, err := load(filepath.Join(t.TempDir(), "none"), overrides{}); err == nil {
		t.Error("a missing file is accepted")
	}
}
