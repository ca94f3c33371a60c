package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/sqlbase"
	"github.com/farspeak/farspeak/internal/store/sqlite"
)

// openStore opens a store that closes with the test.
func openStore(t *testing.T, path string) *sqlbase.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// openRaw opens the file past the store.
func openRaw(t *testing.T, path, parameters string) *sql.DB {
	t.Helper()
	raw, err := sql.Open("sqlite", "file:"+path+"?"+parameters)
	if err != nil {
		t.Fatal(err)
	}
	raw.SetMaxOpenConns(1)
	t.Cleanup(func() { raw.Close() })
	return raw
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ path, says string }{
		"empty":                {"", "is empty"},
		"no directory":         {filepath.Join(dir, "missing", "x.db"), "directory " + filepath.Join(dir, "missing") + " does not exist"},
		"a file in the path":   {filepath.Join(garbage, "x.db"), "not a directory"},
		"a directory":          {dir, "is not a file"},
		"no database":          {garbage, "damaged"},
		"cannot be written to": {"/proc/x.db", "cannot create it"},
	} {
		_, err := sqlite.Open(t.Context(), sqlite.Config{Path: tc.path})
		if err == nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "sqlite_database_path") {
			t.Errorf("%s: %v, want an error that names the field and says %q", name, err, tc.says)
		}
	}
}

func TestFilesAreTheirOwnersAlone(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := t.TempDir()
	openStore(t, filepath.Join(dir, "with ? and # and %41.db"))
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 3 {
		t.Errorf("%d files, want the database and the two beside it", len(entries))
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(entry.Name(), "with ? and # and %41.db") || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", entry.Name(), info.Mode())
		}
	}
}

func TestManyOpenANewFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	var openers sync.WaitGroup
	for range 8 {
		openers.Go(func() {
			s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
			if err != nil {
				t.Error(err)
				return
			}
			id := identity.NewClientID()
			if _, err := s.RecordContacts(t.Context(), []store.ContactUpdate{{ClientID: id, Key: id.Bytes()}}); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	openers.Wait()
	list, err := openStore(t, path).ListClients(t.Context(), identity.ClientID{}, 100)
	if err != nil || len(list) != 8 {
		t.Errorf("%d clients, %v; want 8", len(list), err)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) { // G-49
	path := filepath.Join(t.TempDir(), "x.db")
	openStore(t, path)
	if _, err := openRaw(t, path, "").Exec("INSERT INTO schema_version (version_id, is_applied) VALUES (9999, 1)"); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), sqlite.Config{Path: path}); !errors.Is(err, store.ErrSchema) {
		t.Errorf("Open = %v, want ErrSchema", err)
	}
}

func TestMigrationWaitsForItsTurn(t *testing.T) {
	dir := t.TempDir()
	other, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := syscall.Flock(int(other.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	path := filepath.Join(dir, "x.db")
	if _, err := sqlite.Open(ctx, sqlite.Config{Path: path}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open while another migrates: %v, want it to wait", err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	openStore(t, path)
}

func TestFaultsOfTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	openStore(t, path)
	insert := "INSERT INTO files VALUES ('s', ?, x'00', 1, 1)"
	readOnly, full := openRaw(t, path, "mode=ro"), openRaw(t, path, "_pragma=max_page_count(10)")
	if _, err := full.Exec(insert, strings.Repeat("x", 1<<20)); !strings.Contains(sqlite.Classify(err).Text, "disk full") {
		t.Errorf("full: %v is %+v", err, sqlite.Classify(err))
	}
	if _, err := readOnly.Exec(insert, "n"); !strings.Contains(sqlite.Classify(err).Text, "read-only") {
		t.Errorf("read-only: %v is %+v", err, sqlite.Classify(err))
	}
	if _, err := readOnly.Exec("SELECT 1 FROM missing"); !sqlite.Classify(err).NoTable {
		t.Errorf("no table: %v is %+v", err, sqlite.Classify(err))
	}
	writer, busy := openRaw(t, path, "_txlock=immediate"), openRaw(t, path, "_txlock=immediate")
	tx, err := writer.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := busy.Begin(); sqlite.Classify(err).Retry != "busy" {
		t.Errorf("busy: %v is %+v", err, sqlite.Classify(err))
	}
	if _, err := tx.Exec(insert, "n"); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(insert, "n"); !sqlite.Classify(err).Conflict {
		t.Errorf("conflict: %v is %+v", err, sqlite.Classify(err))
	}
}
