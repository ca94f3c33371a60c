package database_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/farspeak/farspeak/cmd/internal/database"
	"github.com/farspeak/farspeak/internal/config"
	"github.com/farspeak/farspeak/internal/testmysql"
)

func TestMain(m *testing.M) { os.Exit(testmysql.Run(m)) }

// TestMigrate looks at an empty database, migrates it, and looks again.
func TestMigrate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	for name, cfg := range map[string]config.Store{
		"SQLite": {Dialect: config.SQLite, Path: path},
		"MySQL":  {Dialect: config.MySQL, DSN: config.NewSecret(testmysql.NewDatabase(t)), MaxOpenConnections: 4},
	} {
		t.Run(name, func(t *testing.T) {
			before, err := database.ReadSchema(t.Context(), cfg)
			if err != nil || before.Version != 0 || before.Newest == 0 || before.IsUsable() {
				t.Fatalf("before: %+v, %v; want no schema", before, err)
			}
			if _, err := os.Stat(path); name == "SQLite" && err == nil {
				t.Error("looking made the file")
			}
			// Twice: the second time there is nothing to do.
			for range 2 {
				if err := database.Migrate(t.Context(), cfg); err != nil {
					t.Fatal(err)
				}
				after, err := database.ReadSchema(t.Context(), cfg)
				if err != nil || after.Version != before.Newest || after.Newest != before.Newest || !after.IsUsable() {
					t.Fatalf("after: %+v, %v; want version %d", after, err, before.Newest)
				}
			}
		})
	}
}
