package identity_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/farspeak/farspeak/internal/identity"
)

// id is what the three kinds have in common.
type id interface {
	comparable
	IsNil() bool
	Bytes() []byte
	String() string
}

// kind gathers the functions of one kind, so that one set of tests runs on all.
type kind[T id] struct {
	size      int
	new       func() T
	fromBytes func([]byte) (T, error)
	parse     func(string) (T, error)
}

func clientKind() kind[identity.ClientID] {
	return kind[identity.ClientID]{8, identity.NewClientID, identity.ClientIDFromBytes, identity.ParseClientID}
}

func messageKind() kind[identity.MessageID] {
	return kind[identity.MessageID]{32, identity.NewMessageID, identity.MessageIDFromBytes, identity.ParseMessageID}
}

func broadcastKind() kind[identity.BroadcastID] {
	return kind[identity.BroadcastID]{8, identity.NewBroadcastID, identity.BroadcastIDFromBytes,
		identity.ParseBroadcastID}
}

func TestClientID(t *testing.T)    { testKind(t, clientKind()) }
func TestMessageID(t *testing.T)   { testKind(t, messageKind()) }
func TestBroadcastID(t *testing.T) { testKind(t, broadcastKind()) }

func testKind[T id](t *testing.T, k kind[T]) {
	t.Run("nil", func(t *testing.T) { testNil(t, k) })
	t.Run("new", func(t *testing.T) { testNew(t, k) })
	t.Run("bytes", func(t *testing.T) { testBytes(t, k) })
	t.Run("text", func(t *testing.T) { testText(t, k) })
}

func testNil[T id](t *testing.T, k kind[T]) {
	var none T
	if !none.IsNil() || none.Bytes() != nil || none.String() != "nil" {
		t.Errorf("zero value: IsNil %t, Bytes %v, String %q", none.IsNil(), none.Bytes(), none.String())
	}
	for _, b := range [][]byte{nil, {}, make([]byte, k.size)} {
		if got, err := k.fromBytes(b); err != nil || got != none {
			t.Errorf("from bytes %x: %v, %v, want the nil ID", b, got, err)
		}
	}
	for _, text := range []string{"", "nil", strings.Repeat("00", k.size)} {
		if got, err := k.parse(text); err != nil || got != none {
			t.Errorf("parse %q: %v, %v, want the nil ID", text, got, err)
		}
	}
}

func testNew[T id](t *testing.T, k kind[T]) {
	one, other := k.new(), k.new()
	if one.IsNil() || other.IsNil() || one == other {
		t.Errorf("two new IDs are %v and %v", one, other)
	}
}

func testBytes[T id](t *testing.T, k kind[T]) {
	want := k.new()
	binary := want.Bytes()
	if len(binary) != k.size {
		t.Errorf("binary form has %d bytes, want %d", len(binary), k.size)
	}
	got, err := k.fromBytes(binary)
	if err != nil || got != want {
		t.Errorf("from bytes of %v: %v, %v", want, got, err)
	}
	clear(binary)
	if got != want || !bytes.Equal(want.Bytes(), got.Bytes()) {
		t.Errorf("ID shares memory with its binary form")
	}
	for _, size := range []int{1, k.size - 1, k.size + 1, 2 * k.size, 1 << 20} {
		if got, err := k.fromBytes(bytes.Repeat([]byte{7}, size)); err == nil || !got.IsNil() {
			t.Errorf("%d bytes are taken as %v, %v", size, got, err)
		}
	}
}

func testText[T id](t *testing.T, k kind[T]) {
	want := k.new()
	text := want.String()
	if len(text) != 2*k.size || text != strings.ToLower(text) {
		t.Errorf("text form is %q, want %d lower-case hex digits", text, 2*k.size)
	}
	for _, text := range []string{text, strings.ToUpper(text)} {
		if got, err := k.parse(text); err != nil || got != want {
			t.Errorf("parse %q: %v, %v, want %v", text, got, err, want)
		}
	}
	full := strings.Repeat("ab", k.size)
	for _, text := range []string{
		"a", "NIL", "nil ", full[1:], full + "a", full + "ab", " " + full[1:], "0x" + full[2:],
		full[:len(full)-1] + "g", full[:len(full)-2] + "é", strings.Repeat("ab", 1<<16),
	} {
		if got, err := k.parse(text); err == nil || !got.IsNil() {
			t.Errorf("%.40q is taken as %v, %v", text, got, err)
		}
	}
}

// TestParseErrorIsShort: the text may be a megabyte that a stranger chose, and the error ends in a log.
func TestParseErrorIsShort(t *testing.T) {
	_, err := identity.ParseMessageID(strings.Repeat("x", 1<<20))
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("error is %.300q", err)
	}
}

func FuzzParseClientID(f *testing.F)    { fuzzParse(f, clientKind()) }
func FuzzParseMessageID(f *testing.F)   { fuzzParse(f, messageKind()) }
func FuzzParseBroadcastID(f *testing.F) { fuzzParse(f, broadcastKind()) }

// fuzzParse expects that text is either refused or an ID whose own text says the same.
func fuzzParse[T id](f *testing.F, k kind[T]) {
	for _, text := range []string{"", "nil", k.new().String(), strings.ToUpper(k.new().String()), "zz", "0x00"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := k.parse(text)
		if err != nil {
			if !got.IsNil() {
				t.Errorf("%q is refused and yet gives %v", text, got)
			}
			return
		}
		if !got.IsNil() && got.String() != strings.ToLower(text) {
			t.Errorf("%q is taken as %v", text, got)
		}
		if again, err := k.parse(got.String()); err != nil || again != got {
			t.Errorf("%v reads back as %v, %v", got, again, err)
		}
	})
}
