package db_test

import (
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/farspeak/farspeak/db"
)

// TestMigrationsOfBothDialects holds the rules of README.md: one numbering without holes, the same files, forward only.
func TestMigrationsOfBothDialects(t *testing.T) { // G-49
	mysql, sqlite := names(t, db.MySQL()), names(t, db.SQLite())
	if !slices.Equal(mysql, sqlite) {
		t.Errorf("mysql has %v, sqlite has %v", mysql, sqlite)
	}
	for i, name := range mysql {
		if number, _, _ := strings.Cut(name, "_"); len(number) != 5 || number != pad(i+1) {
			t.Errorf("%s: want number %s", name, pad(i+1))
		}
		for dialect, files := range map[string]fs.FS{"mysql": db.MySQL(), "sqlite": db.SQLite()} {
			text, err := fs.ReadFile(files, name)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), "-- +goose Up") || strings.Contains(string(text), "+goose Down") {
				t.Errorf("%s/%s: want a migration that goes up only", dialect, name)
			}
		}
	}
	if db.OldestVersion > len(mysql) {
		t.Errorf("OldestVersion is %d, there are %d migrations", db.OldestVersion, len(mysql))
	}
}

func pad(n int) string {
	digits := strconv.Itoa(n)
	return strings.Repeat("0", 5-len(digits)) + digits
}

func names(t *testing.T, files fs.FS) (names []string) {
	t.Helper()
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// TestTablesOfBothDialects compares the columns: shared statements run on both.
func TestTablesOfBothDialects(t *testing.T) {
	mysql, sqlite := columns(t, db.MySQL()), columns(t, db.SQLite())
	if len(mysql) == 0 || !slices.Equal(mysql, sqlite) {
		t.Errorf("mysql has %v\nsqlite has %v", mysql, sqlite)
	}
}

var (
	table  = regexp.MustCompile(`(?s)CREATE TABLE (?:IF NOT EXISTS )?(\w+) \((.*?)\n\)`)
	column = regexp.MustCompile(`(?m)^  ([a-z_]+) `)
)

func columns(t *testing.T, files fs.FS) (list []string) {
	t.Helper()
	for _, name := range names(t, files) {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range table.FindAllStringSubmatch(string(text), -1) {
			for _, c := range column.FindAllStringSubmatch(match[2], -1) {
				list = append(list, match[1]+"."+c[1])
			}
		}
	}
	slices.Sort(list)
	return list
}

// TestNoForeignKeys holds what Galera, Vitess and TiDB have trouble with out of the schema.
func TestNoForeignKeys(t *testing.T) {
	forbidden := regexp.MustCompile(`(?i)foreign key|references|auto_increment|create (trigger|procedure|view)`)
	for _, name := range names(t, db.MySQL()) {
		text, err := fs.ReadFile(db.MySQL(), name)
		if err != nil {
			t.Fatal(err)
		}
		if found := forbidden.FindString(string(text)); found != "" {
			t.Errorf("%s: %s", name, found)
		}
	}
}

// TestGrantsNameEveryTable finds a table that was forgotten in grants.sql.
func TestGrantsNameEveryTable(t *testing.T) {
	grants, err := os.ReadFile("grants.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range columns(t, db.MySQL()) {
		name, _, _ := strings.Cut(c, ".")
		if !strings.Contains(string(grants), "fleetspeak."+name+" TO") {
			t.Errorf("nobody has rights on table %s", name)
		}
	}
}
