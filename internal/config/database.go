package config

import (
	"strings"
	"time"

	"github.com/farspeak/farspeak/internal/config/textpb"
)

// Dialect is the kind of database.
type Dialect int

// The dialects.
const (
	SQLite Dialect = iota
	MySQL
)

// Store is the database that the components file chooses, for both daemons.
type Store struct {
	Dialect            Dialect
	DSN                Secret // of the MySQL driver
	Path               string // of the SQLite file
	MaxOpenConnections int
	Retention          Retention

	Warnings textpb.Problems
}

// Retention says at which age rows go, and how many dead letters stay. Zero keeps them for ever.
type Retention struct {
	Contacts      time.Duration
	Results       time.Duration
	DeadLetters   time.Duration
	ResourceUsage time.Duration

	MaxDeadLetters     uint64
	MaxDeadLetterBytes uint64
}

// Store returns the database. MySQL wins over SQLite; when nothing is configured it is SQLite at DefaultSQLitePath. The
// error has a line for each broken rule.
func (f *File) Store() (Store, error) {
	r := f.doc.NewReport()
	s := f.store(r)
	s.Warnings = r.Problems().Warnings()
	return s, r.Problems().Err()
}

func (f *File) store(r *textpb.Report) Store {
	pb := f.settings().GetStore()
	s := Store{
		MaxOpenConnections: int(number(r, "farspeak.store.max_open_connections", pb.GetMaxOpenConnections(), maxOpenConnections)),
		Retention:          f.retention(r),
	}
	inline, file, path := f.pb.GetMysqlDataSourceName(), pb.GetMysqlDsnFile(), f.pb.GetSqliteDatabasePath()
	switch {
	case inline != "" || file != "":
		s.Dialect = MySQL
		s.DSN = f.dsn(r, inline, file)
		if path != "" {
			r.Warn("sqlite_database_path", "without effect, since MySQL is configured", "remove one of the two")
		}
	case path != "":
		s.Path = f.sqlitePath(r, path)
	case f.pb.GetSpannerConfig() != nil:
		r.Error("spanner_config", "Spanner is not supported",
			"set mysql_data_source_name, or sqlite_database_path for a single machine")
	default:
		s.Path = DefaultSQLitePath
	}
	return s
}

func (f *File) sqlitePath(r *textpb.Report, path string) string {
	if strings.HasPrefix(path, ":") || strings.HasPrefix(path, "file:") {
		r.Error("sqlite_database_path", "is not a path; the daemons of a machine share a file", "write for example "+DefaultSQLitePath)
	}
	if f.pb.GetSpannerConfig() != nil {
		r.Warn("spanner_config", "without effect: Spanner is not supported, SQLite is used", "remove it")
	}
	return path
}

// dsn reads the DSN and checks its shape; the MySQL driver knows the rest.
func (f *File) dsn(r *textpb.Report, inline, file string) Secret {
	const inlineField, fileField = "mysql_data_source_name", "farspeak.store.mysql_dsn_file"
	dsn, field := NewSecret(inline), inlineField
	switch {
	case inline != "" && file != "":
		r.Error(fileField, "given besides "+inlineField, "keep one of the two")
		return Secret{}
	case file != "":
		dsn, field = secretFile(r, fileField, file), fileField
	case isOpen(f.mode) && strings.Contains(inline, ":") && strings.Contains(inline, "@"):
		r.Warn(inlineField, "this file is open to others and may hold a password", "chmod 0640 it, or use "+fileField)
	}
	head, _, _ := strings.Cut(dsn.Reveal(), "?")
	if slash := strings.LastIndexByte(head, '/'); !dsn.IsZero() && (slash < 0 || slash == len(head)-1) {
		r.Error(field, "names no database", "write user:password@tcp(host:3306)/database")
	}
	return dsn
}

func (f *File) retention(r *textpb.Report) Retention {
	pb := f.settings().GetStore()
	const at = "farspeak.store."
	ages := Retention{
		Contacts:      duration(r, at+"contact_retention", pb.GetContactRetention(), retention),
		Results:       duration(r, at+"result_retention", pb.GetResultRetention(), retention),
		DeadLetters:   duration(r, at+"dead_letter_retention", pb.GetDeadLetterRetention(), retention),
		ResourceUsage: duration(r, at+"resource_usage_retention", pb.GetResourceUsageRetention(), retention),

		MaxDeadLetters:     number(r, at+"dead_letter_max_messages", pb.GetDeadLetterMaxMessages(), deadLetterMaxMessages),
		MaxDeadLetterBytes: number(r, at+"dead_letter_max_bytes", pb.GetDeadLetterMaxBytes(), deadLetterMaxBytes),
	}
	if pb.GetKeepForever() {
		return Retention{}
	}
	return ages
}
