// Package db carries the database schema: numbered migrations, forward only, one folder for each dialect.
//
// The rules for writing one are in README.md.
package db

import (
	"embed"
	"io/fs"
)

// OldestVersion is the oldest schema version that this code still runs on. It lags behind the newest migration while a
// change is rolled out in two steps.
const OldestVersion = 10

// VersionTable is where applied migrations are recorded.
const VersionTable = "schema_version"

//go:embed migrations/mysql/*.sql migrations/sqlite/*.sql
var migrations embed.FS

// MySQL returns the migrations for MySQL and what speaks its protocol.
func MySQL() fs.FS { return dialect("mysql") }

// SQLite returns the migrations for SQLite. Their numbers are those of MySQL.
func SQLite() fs.FS { return dialect("sqlite") }

func dialect(name string) fs.FS {
	sub, err := fs.Sub(migrations, "migrations/"+name)
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}
