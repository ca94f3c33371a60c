package sqlbase

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/farspeak/farspeak/internal/store"
)

func TestCut(t *testing.T) {
	for _, tc := range []struct {
		text  string
		limit int
		want  string
	}{
		{"short", 10, "short"},
		{"exact", 5, "exact"},
		{"ab日本", 4, "ab"},
		{"ab日本", 5, "ab日"},
		{"日", 0, ""},
		{"bad \xff", 10, "bad \uFFFD"},
	} {
		if got := cut(tc.text, tc.limit); got != tc.want {
			t.Errorf("cut(%q, %d) = %q, want %q", tc.text, tc.limit, got, tc.want)
		}
	}
}

func FuzzCutName(f *testing.F) {
	f.Add("name")
	f.Add(strings.Repeat("日", 2*store.MaxName))
	f.Add(strings.Repeat("\xff", 2*store.MaxName))
	f.Fuzz(func(t *testing.T, name string) {
		got := cutName(name)
		if !fitsName(got) || !strings.HasPrefix(name, got) || (utf8.ValidString(name) && !utf8.ValidString(got)) {
			t.Errorf("cutName(%q) = %q", name, got)
		}
		if checkName("name", name) == nil && got != name {
			t.Errorf("a name that fits was cut to %q", got)
		}
	})
}

func TestMicros(t *testing.T) {
	if micros(time.Time{}) != 0 || !fromMicros(0).IsZero() {
		t.Error("no time must be 0")
	}
	at := time.UnixMicro(1_700_000_000_123_456).UTC()
	if got := fromMicros(micros(at)); !got.Equal(at) || got.Location() != time.UTC {
		t.Errorf("%v comes back as %v", at, got)
	}
}
