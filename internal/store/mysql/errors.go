package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"

	driversql "github.com/go-sql-driver/mysql"

	"github.com/farspeak/farspeak/internal/store/sqlbase"
)

// transient are the numbers of faults that end a transaction which may run again.
var transient = map[uint16]string{
	1205: "lock_wait",   // a row lock was not free in time
	1213: "deadlock",    // also a conflict at commit, on Galera
	1637: "too_many",    // no room for another concurrent transaction
	3101: "rolled_back", // group replication rolled the transaction back
	8002: "conflict",    // TiDB: SELECT FOR UPDATE met a write
	8022: "conflict",    // TiDB: commit failed, may run again
	8028: "conflict",    // TiDB: the schema changed meanwhile
	9007: "conflict",    // TiDB: write conflict
}

// unavailable are the numbers that say that the database cannot serve now, with what to tell the operator.
var unavailable = map[uint16]string{
	1021: "disk full",
	1030: "the storage engine fails",
	1037: "out of memory",
	1038: "out of memory",
	1040: "too many connections",
	1041: "out of memory",
	1045: "access denied",
	1047: "the node is not ready",
	1053: "the server is shutting down",
	1077: "the server is shutting down",
	1079: "the server is shutting down",
	1114: "table full",
	1129: "this host is blocked",
	1130: "this host is not allowed to connect",
	1152: "connection aborted",
	1158: "network error",
	1159: "network timeout",
	1160: "network error",
	1161: "network timeout",
	1184: "connection aborted",
	1203: "too many connections of this user",
	1226: "a resource limit of this user is reached",
	1290: "the server is read-only",
	1317: "the statement was interrupted",
	1792: "the transaction is read-only",
	1836: "the server is read-only",
	1927: "the connection was killed",
	1969: "the statement took too long",
	2006: "the server has gone away",
	2013: "the connection was lost",
	3024: "the statement took too long",
	4031: "the connection was idle for too long",
}

const (
	duplicateKey = 1062
	noTable      = 1146
	wrongUser    = 1045
	wrongSchema  = 1049
	noRight      = 1044
	noTableRight = 1142
)

// classify says what an error of the driver means.
func classify(err error) sqlbase.Fault {
	e, ok := errors.AsType[*driversql.MySQLError](err)
	switch {
	case errors.Is(err, driver.ErrBadConn): // found broken before anything was sent
		return sqlbase.Fault{Retry: "connection"}
	case !ok:
		return sqlbase.Fault{Unavailable: isConnection(err)}
	}
	if reason, ok := transient[e.Number]; ok {
		return sqlbase.Fault{Retry: reason}
	}
	if text, ok := unavailable[e.Number]; ok {
		return sqlbase.Fault{Unavailable: true, Text: text}
	}
	return sqlbase.Fault{Conflict: e.Number == duplicateKey, NoTable: e.Number == noTable}
}

// isConnection says whether the connection failed, so that the outcome of what was sent is not known.
func isConnection(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok && !errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	for _, target := range []error{
		driver.ErrBadConn, driversql.ErrInvalidConn, driversql.ErrBusyBuffer, driversql.ErrMalformPkt, driversql.ErrPktSync,
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, sql.ErrConnDone,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// remedy is what an operator does about an error of the first connection; empty when the error says enough.
func remedy(err error) string {
	if e, ok := errors.AsType[*driversql.MySQLError](err); ok {
		switch e.Number {
		case wrongUser:
			return ": check user and password"
		case wrongSchema:
			return ": create the database, then run `fsctl migrate --components_config FILE`"
		case noRight, noTableRight:
			return ": grant the user its rights, see db/grants.sql"
		}
		return ""
	}
	if isConnection(err) {
		return ": check that the server runs and listens there"
	}
	return ""
}
