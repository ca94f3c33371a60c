package sqlbase

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path"

	"github.com/pressly/goose/v3"

	"github.com/farspeak/farspeak/db"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	// versionQuery scans the few rows of the version table.
	versionQuery = `SELECT MAX(version_id) FROM ` + db.VersionTable
)

// CheckSchema compares the version of the schema with what this code knows. A mismatch is store.ErrSchema, with the
// remedy (G-49). It changes nothing.
func (s *Store) CheckSchema(ctx context.Context) (err error) {
	defer s.op("CheckSchema", &err)()
	provider, err := s.migrations()
	if err != nil {
		return err
	}
	wanted := newestVersion(provider)
	found, err := s.schemaVersion(ctx)
	switch {
	case err != nil:
		return err
	case found < db.OldestVersion:
		return fmt.Errorf("%w: the database has version %d, this program needs %d: run `fsctl migrate --components_config FILE`",
			store.ErrSchema, found, wanted)
	case found > wanted:
		return fmt.Errorf("%w: the database has version %d, this program knows %d: install the release that migrated it",
			store.ErrSchema, found, wanted)
	}
	return nil
}

// SchemaVersion returns the version of the database's schema, 0 when it has none, and the newest that this code knows.
func (s *Store) SchemaVersion(ctx context.Context) (found, newest int64, err error) {
	defer s.op("SchemaVersion", &err)()
	provider, err := s.migrations()
	if err != nil {
		return 0, 0, err
	}
	found, err = s.schemaVersion(ctx)
	return found, newestVersion(provider), err
}

// Migrate brings the schema to the newest version and returns the names of the migrations that it applied.
func (s *Store) Migrate(ctx context.Context) (applied []string, err error) {
	defer s.op("Migrate", &err)()
	provider, err := s.migrations()
	if err != nil {
		return nil, err
	}
	found, err := s.schemaVersion(ctx)
	if err != nil {
		return nil, err
	}
	if newest := newestVersion(provider); found > newest {
		return nil, fmt.Errorf("%w: the database has version %d, this program knows %d", store.ErrSchema, found, newest)
	}
	results, err := provider.Up(ctx)
	for _, result := range results {
		applied = append(applied, path.Base(result.Source.Path))
	}
	return applied, err
}

func (s *Store) migrations() (*goose.Provider, error) {
	return goose.NewProvider(s.dialect.Goose, s.cfg.Writer, s.dialect.Migrations, goose.WithTableName(db.VersionTable))
}

func newestVersion(provider *goose.Provider) int64 {
	var newest int64
	for _, source := range provider.ListSources() {
		newest = max(newest, source.Version)
	}
	return newest
}

// schemaVersion is 0 when there is no schema.
func (s *Store) schemaVersion(ctx context.Context) (int64, error) {
	var version sql.NullInt64
	err := s.read().query(ctx, versionQuery, nil, func(r row) error { return r.Scan(&version) })
	if err != nil && (s.dialect.Classify(err).NoTable || errors.Is(err, sql.ErrNoRows)) {
		return 0, nil
	}
	return version.Int64, err
}
