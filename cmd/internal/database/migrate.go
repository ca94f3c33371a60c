package database

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/farspeak/farspeak/db"
	"github.com/farspeak/farspeak/internal/config"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	"github.com/farspeak/farspeak/internal/store/sqlite"
)

// Schema is the state of a database's schema.
type Schema struct {
	Version int64 // 0: there is no schema
	Newest  int64 // that this program knows
}

// IsUsable says whether daemons of this release run on it.
func (s Schema) IsUsable() bool { return s.Version >= db.OldestVersion && s.Version <= s.Newest }

// ReadSchema looks at the schema of the configured database and changes nothing.
func ReadSchema(ctx context.Context, cfg config.Store) (Schema, error) {
	if cfg.Dialect == config.SQLite {
		if _, err := os.Stat(cfg.Path); errors.Is(err, fs.ErrNotExist) {
			return Schema{Newest: newestMigration(db.SQLite())}, nil // opening would make the file
		}
	}
	opened, err := openUnchanged(ctx, cfg)
	if err != nil {
		return Schema{}, err
	}
	found, newest, err := opened.SchemaVersion(ctx)
	return Schema{found, newest}, errors.Join(err, opened.Close())
}

func openUnchanged(ctx context.Context, cfg config.Store) (*sqlbase.Store, error) {
	if cfg.Dialect == config.MySQL {
		return Open(ctx, cfg, Options{})
	}
	return sqlite.Open(ctx, sqlite.Config{Path: cfg.Path, KeepSchema: true})
}

// newestMigration is the largest number at the beginning of a file name.
func newestMigration(migrations fs.FS) int64 {
	names, err := fs.Glob(migrations, "*.sql")
	if err != nil {
		panic(err) // the pattern is good
	}
	var newest int64
	for _, name := range names {
		digits, _, _ := strings.Cut(name, "_")
		if n, err := strconv.ParseInt(digits, 10, 64); err == nil {
			newest = max(newest, n)
		}
	}
	return newest
}

// Migrate brings the schema of the configured database to the newest version. It has to be allowed to change tables.
func Migrate(ctx context.Context, cfg config.Store) error {
	opened, err := Open(ctx, cfg, Options{}) // SQLite migrates itself, under a lock of its own
	if err != nil {
		return err
	}
	if cfg.Dialect == config.MySQL {
		_, err = opened.Migrate(ctx)
	}
	return errors.Join(err, opened.Close())
}
