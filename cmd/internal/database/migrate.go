package database

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/farspeak/farspeak/db"
	"github.com/farspeak/farspeak/internal/config"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/mysql"
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
			return newestOnly(ctx)
		}
	}
	opened, err := openUnchanged(ctx, cfg)
	if err != nil {
		return Schema{}, err
	}
	found, newest, err := opened.SchemaVersion(ctx)
	return Schema{found, newest}, errors.Join(err, opened.Close())
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
