package sqlbase

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/pressly/goose/v3"
)

// Dialect is what differs between the databases.
//
// Statements are templates. These marks are replaced:
//
//	{now}              the store's clock in microseconds
//	{list}             as many placeholders as an IN list has elements
//	{rows}             the rows of a multi-row INSERT
//	{pairs A B}        a SELECT of rows with columns A and B, as many as a list has elements; takes the place of a {list}
//	{then}             joins a table that is read after the one before it
//	{lock}             lock the rows that are read, until the end of the transaction
//	{index I}          after a table: use index I
//	{delete T I}       DELETE FROM T a range of its index I; a condition follows
//	{delete T I C}     DELETE FROM T the rows whose column C is in a list, each looked up in index I; it takes the place of
//	                   a {list}, and "AND ..." may follow
//	{number}(E)        in an INSERT of one row: E, whose value session.number returns when the statement ends with {returning C},
//	                   where C is the column that it goes to
//	{ignore C}         at the end of an INSERT: leave rows alone that exist; C is a column of the table
//	{upsert K: A B}    at the end of an INSERT: in rows that exist under the key K, set A and B to the new values
type Dialect struct {
	Name       string
	Goose      goose.Dialect
	Migrations fs.FS

	// Now is an SQL expression, or, when NowFunc is set, unused.
	Now     string
	NowFunc func() string // a literal
	// Hints says that the database takes locking reads, forced indexes, and MySQL's ON DUPLICATE KEY UPDATE and
	// LAST_INSERT_ID; otherwise it takes ON CONFLICT and RETURNING and needs no hints.
	Hints bool
	// UnionParts is how many parenthesised SELECTs one statement may join; 1 means that they are run one by one.
	UnionParts int
	// PrepareAbove is the size of a row in bytes from which it is sent as a prepared statement, which escapes nothing;
	// 0 means never.
	PrepareAbove int
	// Classify says what an error of the driver means.
	Classify func(error) Fault
}

// Fault is what an error of a driver means for the caller. The zero Fault is an error that repeats.
type Fault struct {
	// Retry names a transient fault whose transaction was rolled back and may run again: a value of the retry metric.
	Retry string
	// Unavailable says that the database cannot serve now; Text adds what an operator should know, or is empty.
	Unavailable bool
	Text        string
	// Conflict says that a unique key exists.
	Conflict bool
	// NoTable says that a table is missing.
	NoTable bool
}

// expand replaces the marks that depend on the dialect alone.
func (d *Dialect) expand(template string) string {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(template, "{")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		mark, after, closed := strings.Cut(rest, "}")
		if !closed {
			panic("store: unclosed mark in statement: " + template)
		}
		out.WriteString(d.mark(mark))
		template = after
	}
}

func (d *Dialect) mark(mark string) string {
	name, arg, _ := strings.Cut(mark, " ")
	switch name {
	case "list", "keys", "rows":
		return "{" + mark + "}" // later, they depend on the call
	case "pairs":
		if d.Hints {
			return "{" + mark + "}"
		}
		a, b, _ := strings.Cut(arg, " ")
		return "SELECT column1 AS " + a + ", column2 AS " + b + " FROM (VALUES {tuples})"
	case "now":
		if d.NowFunc != nil {
			return "{now}"
		}
		return d.Now
	case "then":
		if d.Hints {
			return "STRAIGHT_JOIN"
		}
		return "CROSS JOIN"
	case "lock":
		return when(d.Hints, "FOR UPDATE")
	case "index":
		return when(d.Hints, "FORCE INDEX ("+arg+")")
	case "number":
		return when(d.Hints, "LAST_INSERT_ID")
	case "returning":
		return when(!d.Hints, "RETURNING "+arg)
	case "delete":
		return d.delete(strings.Fields(arg))
	case "ignore":
		if d.Hints {
			return fmt.Sprintf("ON DUPLICATE KEY UPDATE %s = %s", arg, arg)
		}
		return "ON CONFLICT DO NOTHING"
	case "upsert":
		return d.upsert(arg)
	}
	panic("store: unknown mark in statement: " + mark)
}

// delete spells {delete T I} and {delete T I C}. MariaDB takes no advice on IN lists in a DELETE: when most of a small
// table is in the list it scans the table, and waits for rows that other transactions have locked. So the list becomes a
// table to join with, in an order that is fixed.
func (d *Dialect) delete(args []string) string {
	table, index := args[0], args[1]
	switch {
	case !d.Hints && len(args) == 2:
		return "DELETE FROM " + table
	case !d.Hints:
		return "DELETE FROM " + table + " WHERE " + args[2] + " IN ({list})"
	case len(args) == 2:
		return fmt.Sprintf("DELETE %s FROM %s FORCE INDEX (%s)", table, table, index)
	}
	return fmt.Sprintf("DELETE %s FROM ({keys}) AS wanted STRAIGHT_JOIN %s FORCE INDEX (%s) ON %s.%s = wanted.id",
		table, table, index, table, args[2])
}

func (d *Dialect) upsert(arg string) string {
	key, columns, _ := strings.Cut(arg, ":")
	head, format := "ON CONFLICT ("+key+") DO UPDATE SET ", "%s = excluded.%s"
	if d.Hints {
		head, format = "ON DUPLICATE KEY UPDATE ", "%s = VALUES(%s)"
	}
	var sets []string
	for column := range strings.FieldsSeq(columns) {
		sets = append(sets, fmt.Sprintf(format, column, column))
	}
	return head + strings.Join(sets, ", ")
}

func when(ok bool, text string) string {
	if ok {
		return text
	}
	return ""
}

// sql expands a template, with a list of n placeholders for the i-th list.
func (s *Store) sql(template string, lists ...int) string {
	text, ok := s.templates.Load(template)
	if !ok {
		text = s.dialect.expand(template)
		s.templates.Store(template, text)
	}
	statement := text.(string)
	for _, n := range lists {
		statement = fillList(statement, n)
	}
	return s.withNow(statement)
}

func (s *Store) withNow(statement string) string {
	if s.dialect.NowFunc == nil {
		return statement
	}
	return strings.ReplaceAll(statement, "{now}", s.dialect.NowFunc())
}

// fillList replaces the first list mark.
func fillList(statement string, n int) string {
	for at := 0; ; at++ {
		next := strings.IndexByte(statement[at:], '{')
		if next < 0 {
			return statement
		}
		at += next
		mark, after, _ := strings.Cut(statement[at+1:], "}")
		if list := listOf(mark, n); list != "" {
			return statement[:at] + list + after
		}
	}
}

// listOf spells a list mark for n elements; it is empty for other marks.
func listOf(mark string, n int) string {
	more := max(n, 1) - 1
	name, columns, _ := strings.Cut(mark, " ")
	switch name {
	case "list":
		return placeholders(n)
	case "keys":
		return "SELECT ? AS id" + strings.Repeat(" UNION ALL SELECT ?", more)
	case "pairs":
		a, b, _ := strings.Cut(columns, " ")
		return "SELECT ? AS " + a + ", ? AS " + b + strings.Repeat(" UNION ALL SELECT ?, ?", more)
	case "tuples":
		return "(?, ?)" + strings.Repeat(", (?, ?)", more)
	}
	return ""
}

func placeholders(n int) string {
	if n < 1 {
		return "NULL" // an empty list matches nothing
	}
	return strings.Repeat("?,", n-1) + "?"
}
