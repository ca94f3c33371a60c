// Package sqlite opens the store in one SQLite file, which all daemons of a machine share.
//
// The file is in WAL mode with a sync at each commit, so that what was answered survives a power cut. A process writes
// through one connection, in transactions that take the write lock at their start, and reads through others. Processes
// wait for each other's commits. The file must be on a local disk.
//
// Opening brings the schema up to date; two processes that start together take turns.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/prometheus/client_golang/prometheus"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/farspeak/farspeak/db"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
)

const (
	// busyTimeout is how long a statement waits for another process's commit.
	busyTimeout = 10 * time.Second
	// journalLimit is the size in bytes to which the write-ahead log shrinks again after a burst.
	journalLimit = 64 << 20
	// cacheKiB is the page cache of one connection.
	cacheKiB = 8 << 10
)

// Config says which file, and the bounds of the store.
type Config struct {
	// Path of the database file. Its directory must exist; the file is made when it is missing, readable by its owner
	// only.
	Path string
	// KeepSchema leaves the schema as it is, for those who only want to look at its version.
	KeepSchema bool
	// MaxPendingPerClient, MaxFetchBytes and Registerer are as in sqlbase.Config.
	MaxPendingPerClient uint64
	MaxFetchBytes       int
	Registerer          prometheus.Registerer
}

// Open opens the database, brings its schema up to date, and returns the store on it.
func Open(ctx context.Context, cfg Config) (*sqlbase.Store, error) {
	path, err := prepare(cfg.Path)
	if err != nil {
		return nil, err
	}
	writer, err := sql.Open("sqlite", dataSource(path, "_txlock=immediate"))
	if err != nil {
		return nil, fmt.Errorf("sqlite_database_path %s: %w", path, err)
	}
	reader, err := sql.Open("sqlite", dataSource(path, "_query_only=1"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite_database_path %s: %w", path, err), writer.Close())
	}
	writer.SetMaxOpenConns(1)
	reader.SetMaxOpenConns(max(4, 2*runtime.NumCPU()))
	reader.SetMaxIdleConns(max(4, 2*runtime.NumCPU()))
	s, err := sqlbase.New(sqlbase.Config{
		Dialect: dialect(), Writer: writer, Reader: reader,
		MaxPendingPerClient: cfg.MaxPendingPerClient, MaxFetchBytes: cfg.MaxFetchBytes, Registerer: cfg.Registerer,
	})
	if err != nil {
		return nil, errors.Join(err, writer.Close(), reader.Close())
	}
	if cfg.KeepSchema {
		return s, nil
	}
	if err := migrate(ctx, s, path); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite_database_path %s: %w", path, err), s.Close())
	}
	return s, nil
}

func dialect() *sqlbase.Dialect {
	return &sqlbase.Dialect{
		Name:       "sqlite",
		Goose:      goose.DialectSQLite3,
		Migrations: db.SQLite(),
		NowFunc:    func() string { return strconv.FormatInt(time.Now().UnixMicro(), 10) },
		UnionParts: 1,
		Classify:   classify,
	}
}

// dataSource names the file for the driver. Pragmas are applied in the order given.
func dataSource(path, parameter string) string {
	return (&url.URL{Scheme: "file", Path: path}).String() + "?" + parameter + "&_dqs=0" +
		"&_busy_timeout=" + strconv.FormatInt(busyTimeout.Milliseconds(), 10) +
		"&_journal_mode=WAL&_synchronous=FULL" +
		"&_pragma=journal_size_limit(" + strconv.Itoa(journalLimit) + ")" +
		"&_pragma=cache_size(-" + strconv.Itoa(cacheKiB) + ")" +
		"&_pragma=temp_store(MEMORY)"
}

// prepare checks the path and makes the file, so that nobody but its owner can read it. SQLite gives the files beside it
// the same mode.
func prepare(path string) (string, error) {
	if path == "" {
		return "", errors.New("sqlite_database_path is empty: set it to the path of a database file")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("sqlite_database_path: %w", err)
	}
	directory := filepath.Dir(path)
	info, err := os.Stat(directory)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("sqlite_database_path %s: directory %s does not exist: create it, writable for this user", path, directory)
	case err != nil:
		return "", fmt.Errorf("sqlite_database_path %s: %w", path, err)
	case !info.IsDir():
		return "", fmt.Errorf("sqlite_database_path %s: %s is not a directory", path, directory)
	}
	if err := checkWritable(directory); err != nil { // SQLite keeps files of its own beside the database
		return "", fmt.Errorf("sqlite_database_path %s: directory %s is not writable for this user: %w", path, directory, err)
	}
	info, err = os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return path, create(path)
	case err != nil:
		return "", fmt.Errorf("sqlite_database_path %s: %w", path, err)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("sqlite_database_path %s is not a file", path)
	}
	if err := checkWritable(path); err != nil {
		return "", fmt.Errorf("sqlite_database_path %s is not writable for this user: %w", path, err)
	}
	return path, nil
}

// create makes an empty file under another name and links it. The file itself is never opened and closed here: closing it
// would drop the locks that SQLite may hold on it elsewhere in this process.
func create(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("sqlite_database_path %s: cannot create it: %w", path, err)
	}
	defer os.Remove(f.Name())
	if err := f.Close(); err != nil {
		return fmt.Errorf("sqlite_database_path %s: %w", path, err)
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("sqlite_database_path %s: cannot create it: %w", path, err)
	}
	return nil
}

// migrate brings the schema up to date, unless it is.
func migrate(ctx context.Context, s *sqlbase.Store, path string) error {
	err := s.CheckSchema(ctx)
	if !errors.Is(err, store.ErrSchema) {
		return err
	}
	unlock, err := lockDirectory(ctx, filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unlock()
	_, err = s.Migrate(ctx)
	return err
}
