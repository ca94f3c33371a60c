// Package render prints results: tables for people, JSON for programs. It is given each result once, as a value with
// JSON tags and as the cells of its line.
package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Formats are the values of --output.
var Formats = []string{"table", "json"}

// flushRows is how many lines a table collects to align them. Long lists appear in parts.
const flushRows = 500

// List prints results one after the other. In JSON the whole is one array.
type List struct {
	out   io.Writer
	json  bool
	table *tabwriter.Writer
	rows  int
}

// NewList begins a list with these column heads.
func NewList(out io.Writer, format string, heads ...string) *List {
	l := &List{out: out, json: format == "json"}
	if !l.json {
		l.table = newTable(out)
		fmt.Fprintln(l.table, strings.Join(heads, "\t"))
	}
	return l
}

// Add prints one result: value in JSON, cells in a table.
func (l *List) Add(value any, cells ...any) error {
	l.rows++
	if l.json {
		return l.addJSON(value)
	}
	if _, err := fmt.Fprintln(l.table, line(cells)); err != nil {
		return err
	}
	if l.rows%flushRows == 0 {
		return l.table.Flush()
	}
	return nil
}

func (l *List) addJSON(value any) error {
	text, err := encode(value, "  ")
	if err != nil {
		return err
	}
	lead := ",\n  "
	if l.rows == 1 {
		lead = "[\n  "
	}
	_, err = fmt.Fprintf(l.out, "%s%s", lead, text)
	return err
}

// Flush shows the lines that a table collects.
func (l *List) Flush() error {
	if l.json {
		return nil
	}
	return l.table.Flush()
}

// Close ends the list.
func (l *List) Close() error {
	if !l.json {
		return l.table.Flush()
	}
	end := "\n]\n"
	if l.rows == 0 {
		end = "[]\n"
	}
	_, err := io.WriteString(l.out, end)
	return err
}

// Field is a line of a single result.
type Field struct {
	Name  string
	Value any
}

// One prints a single result: value in JSON, otherwise the fields below each other.
func One(out io.Writer, format string, value any, fields ...Field) error {
	if format == "json" {
		text, err := encode(value, "")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "%s\n", text)
		return err
	}
	table := newTable(out)
	for _, f := range fields {
		fmt.Fprintln(table, f.Name+":\t"+cell(f.Value))
	}
	return table.Flush()
}

func encode(value any, prefix string) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent(prefix, "  ")
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), nil
}

func newTable(out io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
}

func line(cells []any) string {
	texts := make([]string, len(cells))
	for i, c := range cells {
		texts[i] = cell(c)
	}
	return strings.TrimRight(strings.Join(texts, "\t"), "\t")
}

// cell is the text of a value. What clients report may hold anything; in a table it must neither break the columns nor
// reach the terminal as a control sequence.
func cell(value any) string {
	var text string
	switch v := value.(type) {
	case time.Time:
		if v.IsZero() {
			return "-"
		}
		return v.Local().Format(time.DateTime)
	case []string:
		text = strings.Join(v, ",")
	default:
		text = fmt.Sprint(v)
	}
	if text == "" {
		return "-"
	}
	return strings.Map(printable, text)
}

func printable(r rune) rune {
	if r < ' ' || r >= 0x7f && r < 0xa0 {
		return '\ufffd'
	}
	return r
}
