package render_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/render"
)

type row struct {
	Name string `json:"name"`
	Size int    `json:"size"`
}

func TestTable(t *testing.T) {
	var out strings.Builder
	list := render.NewList(&out, "table", "NAME", "SIZE", "LABELS", "WHEN")
	for _, cells := range [][]any{
		{"a", 1, []string{"x", "y"}, time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)},
		{"longer", 22, []string(nil), time.Time{}},
		{"evil\x1b[2J\tx\n\u0085", 3, "", "z"},
	} {
		if err := list.Add(nil, cells...); err != nil {
			t.Fatal(err)
		}
	}
	if err := list.Close(); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"NAME         SIZE  LABELS  WHEN\n" +
		"a            1     x,y     2026-03-01 12:00:00\n" +
		"longer       22    -       -\n" +
		"evil�[2J�x��  3     -       z\n"
	if squeeze(out.String()) != squeeze(want) {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// squeeze takes the padding away, which is the business of tabwriter.
func squeeze(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.Join(strings.Fields(l), " ")
	}
	return strings.Join(lines, "\n")
}

func TestJSONList(t *testing.T) {
	for name, rows := range map[string][]row{
		"none": {}, "one": {{"a", 1}}, "two": {{"<a>", 1}, {"b", 2}},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			list := render.NewList(&out, "json", "NAME")
			for _, r := range rows {
				if err := list.Add(r); err != nil {
					t.Fatal(err)
				}
			}
			if err := list.Close(); err != nil {
				t.Fatal(err)
			}
			var got []row
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatalf("%v in %s", err, out.String())
			}
			if len(got) != len(rows) {
				t.Errorf("got %v, want %v", got, rows)
			}
		})
	}
}

func TestOne(t *testing.T) {
	var table, text strings.Builder
	value, field := row{"a", 1}, render.Field{Name: "Name", Value: "a"}
	if err := render.One(&table, "table", value, field); err != nil {
		t.Fatal(err)
	}
	if err := render.One(&text, "json", value, field); err != nil {
		t.Fatal(err)
	}
	if want := "Name:  a\n"; table.String() != want {
		t.Errorf("table %q, want %q", table.String(), want)
	}
	if want := "{\n  \"name\": \"a\",\n  \"size\": 1\n}\n"; text.String() != want {
		t.Errorf("JSON %q, want %q", text.String(), want)
	}
}

func TestProgressIsForTerminals(t *testing.T) {
	var out strings.Builder
	p := render.NewProgress(&out, "working", 1000)
	p.Step()
	p.Close()
	if out.Len() != 0 {
		t.Errorf("wrote %q to what is no terminal", out.String())
	}
}
