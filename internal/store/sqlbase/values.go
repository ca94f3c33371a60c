package sqlbase

import (
	"database/sql"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/identity"
	"github.com/farspeak/farspeak/internal/store"
)

const (
	// maxNameBytes is the width of name columns: store.MaxName characters of any kind.
	maxNameBytes = 4 * store.MaxName
	// maxReason bounds the text of a result, in bytes.
	maxReason = 60 << 10
	// maxAddress is the width of address columns; longer ones are cut.
	maxAddress = 255
	// maxKey and maxSignature are widths of columns.
	maxKey       = 4096
	maxSignature = 4096
)

// fixed scans a column of a fixed size into an ID.
type fixed []byte

// Scan implements sql.Scanner.
func (f fixed) Scan(value any) error {
	b, ok := value.([]byte)
	if !ok || len(b) != len(f) {
		return fmt.Errorf("column of %T, want %d bytes", value, len(f))
	}
	copy(f, b)
	return nil
}

// nullTime scans the two columns of a time that a client gave.
type nullTime struct{ seconds, nanos sql.NullInt64 }

func (t nullTime) timestamp() *timestamppb.Timestamp {
	if !t.seconds.Valid {
		return nil
	}
	return &timestamppb.Timestamp{Seconds: t.seconds.Int64, Nanos: int32(t.nanos.Int64)}
}

// timeArgs are the two columns of a time that a client gave.
func timeArgs(t *timestamppb.Timestamp) (seconds, nanos any) {
	if t == nil {
		return nil, nil
	}
	return t.GetSeconds(), int64(t.GetNanos())
}

// micros is a time of the store's clock; the zero time is 0.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// fitsName says whether a name fits its column.
func fitsName(name string) bool {
	return len(name) <= maxNameBytes && utf8.RuneCountInString(name) <= store.MaxName
}

func checkName(kind, name string) error {
	if !fitsName(name) {
		return fmt.Errorf("%w: %s of %d bytes, at most %d characters", store.ErrInvalid, kind, len(name), store.MaxName)
	}
	return nil
}

// cutName shortens a name that is kept for information only.
func cutName(name string) string {
	if fitsName(name) {
		return name
	}
	end := 0
	for range store.MaxName {
		_, width := utf8.DecodeRuneInString(name[end:])
		end += width
	}
	return name[:end]
}

// cut shortens text to a number of bytes without splitting a character, and drops what is not UTF-8.
func cut(text string, limit int) string {
	if len(text) > limit {
		for limit > 0 && !utf8.RuneStart(text[limit]) {
			limit--
		}
		text = text[:limit]
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

func clientArgs(ids []identity.ClientID) []any {
	args := make([]any, len(ids))
	for i := range ids {
		args[i] = ids[i][:]
	}
	return args
}

func messageArgs(ids []identity.MessageID) []any {
	args := make([]any, len(ids))
	for i := range ids {
		args[i] = ids[i][:]
	}
	return args
}

func stringArgs(texts []string) []any {
	args := make([]any, len(texts))
	for i, text := range texts {
		args[i] = text
	}
	return args
}
