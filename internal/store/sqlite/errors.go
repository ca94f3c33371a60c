package sqlite

import (
	"database/sql/driver"
	"errors"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/farspeak/farspeak/internal/store/sqlbase"
)

// classify says what an error of the driver means.
func classify(err error) sqlbase.Fault {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return sqlbase.Fault{Unavailable: errors.Is(err, driver.ErrBadConn)}
	}
	switch e.Code() {
	case sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_ROWID:
		return sqlbase.Fault{Conflict: true}
	}
	switch e.Code() & 0xff { // the primary code
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return sqlbase.Fault{Retry: "busy"}
	case sqlite3.SQLITE_FULL:
		return sqlbase.Fault{Unavailable: true, Text: "disk full"}
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return sqlbase.Fault{Unavailable: true, Text: "the database file, or its directory, is read-only for this user"}
	case sqlite3.SQLITE_CANTOPEN:
		return sqlbase.Fault{Unavailable: true, Text: "the database file cannot be opened"}
	case sqlite3.SQLITE_IOERR:
		return sqlbase.Fault{Unavailable: true, Text: "the disk of the database file fails"}
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return sqlbase.Fault{Unavailable: true, Text: "the database file is damaged or none of SQLite"}
	case sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOMEM:
		return sqlbase.Fault{Unavailable: true}
	case sqlite3.SQLITE_ERROR:
		return sqlbase.Fault{NoTable: strings.Contains(e.Error(), "no such table")}
	}
	return sqlbase.Fault{}
}
