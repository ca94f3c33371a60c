package textpb

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong, or unwise, in one file.
type Problem struct {
	File    string
	Line    int    // from 1; 0 when the file as a whole is meant
	Column  int    // from 1, in characters
	Field   string // path such as "https_config.listen_address" or "services[1].name"; empty at the top
	Message string // what is wrong; never a secret's value
	Remedy  string // what to do about it
	Warning bool   // the file can be used as it is
}

// Error is the whole problem on one line: file:line:column: field: message; remedy.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	for _, s := range []string{p.severity(), p.Field, p.Message} {
		if s != "" {
			b.WriteString(": " + s)
		}
	}
	if p.Remedy != "" {
		b.WriteString("; " + p.Remedy)
	}
	return b.String()
}

func (p Problem) severity() string {
	if p.Warning {
		return "warning"
	}
	return ""
}

// Problems is a list of them, ordered by file and place.
type Problems []Problem

// Err returns the problems that keep the file from being used as one error, one line each, or nil when there are none.
func (ps Problems) Err() error {
	bad := slices.DeleteFunc(slices.Clone(ps), func(p Problem) bool { return p.Warning })
	if len(bad) == 0 {
		return nil
	}
	return bad
}

// Warnings returns those that do not.
func (ps Problems) Warnings() Problems {
	return slices.DeleteFunc(slices.Clone(ps), func(p Problem) bool { return !p.Warning })
}

// Error has one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// sorted orders by place and drops repetitions, which come about when two parts of a file share a check.
func (ps Problems) sorted() Problems {
	ps = slices.Clone(ps)
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.Compact(ps)
}

// Join merges lists into one, in order of place and without repetitions.
func Join(lists ...Problems) Problems {
	return Problems(slices.Concat(lists...)).sorted()
}
