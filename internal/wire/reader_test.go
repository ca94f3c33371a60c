package wire_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/farspeak/farspeak/internal/wire"
)

func unhex(tb testing.TB, text string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// record is a length and a body.
func record(length uint64, body string) []byte {
	return append(binary.AppendUvarint(nil, length), body...)
}

func TestMagic(t *testing.T) {
	if got := wire.AppendMagic(nil); !bytes.Equal(got, unhex(t, "0110eef1")) {
		t.Errorf("AppendMagic = %x", got)
	}
	for _, test := range []struct {
		name, stream string
		want         error
	}{
		{"right", "0110eef1", nil},
		{"wrong", "0110eef2", wire.ErrMagic},
		{"big endian", "f1ee1001", wire.ErrMagic},
		{"nothing", "", io.EOF},
		{"cut short", "0110ee", io.ErrUnexpectedEOF},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := wire.NewRecordReader(bytes.NewReader(unhex(t, test.stream)), wire.FromClient(nil))
			if err := r.ReadMagic(); !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if test.want == nil {
				return
			}
			if _, err := r.Next(); !errors.Is(err, test.want) {
				t.Errorf("Next after it: error %v, want %v", err, test.want)
			}
		})
	}
}

func TestRecords(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 1<<16)
	bodies := []string{"a", strings.Repeat("b", 127), strings.Repeat("c", 128), long[:4096], long[:4097], long[:300000], long, "z"}
	var stream []byte
	for _, body := range bodies {
		stream = wire.AppendRecord(stream, []byte(body))
	}
	for name, from := range map[string]io.Reader{
		"whole":        bytes.NewReader(stream),
		"in halves":    iotest.HalfReader(bytes.NewReader(stream)),
		"early errors": iotest.DataErrReader(bytes.NewReader(stream)),
		"with budget":  bytes.NewReader(stream),
	} {
		t.Run(name, func(t *testing.T) {
			budget := wire.NewBudget(wire.MaxClientRecord)
			r := wire.NewRecordReader(from, wire.FromClient(budget))
			for i, want := range bodies {
				got, err := r.Next()
				if err != nil {
					t.Fatalf("record %d: %v", i, err)
				}
				if string(got.Bytes()) != want {
					t.Errorf("record %d has %d bytes, want %d, or other content", i, len(got.Bytes()), len(want))
				}
				got.Release()
				got.Release() // does nothing
			}
			if _, err := r.Next(); err != io.EOF {
				t.Errorf("at the end: %v, want bare io.EOF", err)
			}
			if used := budget.Used(); used != 0 {
				t.Errorf("%d bytes of the budget are still in use", used)
			}
		})
	}
}

func TestRecordBytewise(t *testing.T) {
	stream := wire.AppendRecord(wire.AppendMagic(nil), []byte(strings.Repeat("x", 5000)))
	r := wire.NewRecordReader(iotest.OneByteReader(bytes.NewReader(stream)), wire.FromClient(nil))
	if err := r.ReadMagic(); err != nil {
		t.Fatal(err)
	}
	got, err := r.Next()
	if err != nil || len(got.Bytes()) != 5000 {
		t.Errorf("record %v, error %v", got, err)
	}
}

func TestMalformedRecords(t *testing.T) {
	client, server := wire.FromClient(nil), wire.FromServer(nil)
	for _, test := range []struct {
		name   string
		cfg    wire.ReaderConfig
		stream []byte
		want   error
	}{
		{"empty from client", client, record(0, ""), wire.ErrEmptyRecord}, // G-03
		{"empty padded", client, []byte{0x80, 0x00}, wire.ErrLength},
		{"padded length", client, []byte{0x81, 0x00, 'x'}, wire.ErrLength},
		{"one byte too large", client, record(wire.MaxClientRecord+1, ""), wire.ErrTooLarge},
		{"largest, nothing follows", client, record(wire.MaxClientRecord, ""), io.ErrUnexpectedEOF},
		{"largest number", client, record(1<<64-1, ""), wire.ErrTooLarge},
		{"largest number from server", server, record(1<<64-1, ""), wire.ErrTooLarge},
		{"more than 64 bits", client, append(bytes.Repeat([]byte{0xff}, 9), 0x02), wire.ErrLength},
		{"endless length", client, bytes.Repeat([]byte{0xff}, 20), wire.ErrLength},
		{"length cut short", client, []byte{0xff}, io.ErrUnexpectedEOF},
		{"body missing", client, record(3, ""), io.ErrUnexpectedEOF},
		{"body cut short", client, record(3, "ab"), io.ErrUnexpectedEOF},
		{"long body cut at a buffer's end", client, record(9000, strings.Repeat("x", 4096)), io.ErrUnexpectedEOF},
		{"zero limit", wire.ReaderConfig{}, record(1, "x"), wire.ErrTooLarge},
		{"end", client, nil, io.EOF},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := wire.NewRecordReader(bytes.NewReader(test.stream), test.cfg)
			got, err := r.Next()
			if !errors.Is(err, test.want) || got != nil {
				t.Fatalf("record %v, error %v, want %v", got, err, test.want)
			}
			if _, again := r.Next(); again != err {
				t.Errorf("a second Next: %v, want the first error", again)
			}
			ours := !errors.Is(test.want, io.ErrUnexpectedEOF) && !errors.Is(test.want, io.EOF)
			if errors.Is(err, wire.ErrProtocol) != ours {
				t.Errorf("%v: ErrProtocol in it: %v, want %v", err, !ours, ours)
			}
		})
	}
}

func TestEmptyRecordFromServer(t *testing.T) {
	r := wire.NewRecordReader(bytes.NewReader([]byte{0, 1, 'x'}), wire.FromServer(nil))
	for _, want := range []string{"", "x"} {
		got, err := r.Next()
		if err != nil || string(got.Bytes()) != want {
			t.Fatalf("record %v, error %v, want %q", got, err, want)
		}
		got.Release()
	}
}

func TestTransportErrorPassesThrough(t *testing.T) {
	for name, prefix := range map[string][]byte{"between records": nil, "in a length": {0x80}, "in a body": {9, 'x'}} {
		from := io.MultiReader(bytes.NewReader(prefix), iotest.ErrReader(os.ErrDeadlineExceeded))
		r := wire.NewRecordReader(from, wire.FromClient(nil))
		if _, err := r.Next(); !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, wire.ErrProtocol) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// An announced length costs nothing: memory follows the data. // G-03
func TestAnnouncedLengthAllocatesNothing(t *testing.T) {
	const peers, sent = 200, 10000
	budget := wire.NewBudget(1 << 30)
	stream := record(wire.MaxClientRecord, strings.Repeat("x", sent))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range peers {
		waiting := &waitingReader{data: stream, atEnd: func() {
			if used := budget.Used(); used > 4*sent {
				t.Errorf("%d bytes taken for %d received", used, sent)
			}
		}}
		if _, err := wire.NewRecordReader(waiting, wire.FromClient(budget)).Next(); !errors.Is(err, errWaiting) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / peers; each > 8*sent {
		t.Errorf("%d bytes allocated for each record of which %d came", each, sent)
	}
	if used := budget.Used(); used != 0 {
		t.Errorf("%d bytes of the budget are still in use", used)
	}
}

var errWaiting = errors.New("no more data")

// waitingReader gives data, and then calls atEnd and fails.
type waitingReader struct {
	data  []byte
	atEnd func()
}

func (w *waitingReader) Read(p []byte) (int, error) {
	if len(w.data) == 0 {
		w.atEnd()
		return 0, errWaiting
	}
	n := copy(p, w.data)
	w.data = w.data[n:]
	return n, nil
}

// What a reader does not need is left to others.
func TestNoReadAhead(t *testing.T) {
	stream := bytes.NewReader([]byte("\x01arest"))
	if _, err := wire.NewRecordReader(stream, wire.FromClient(nil)).Next(); err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(stream); string(rest) != "rest" {
		t.Errorf("%q is left", rest)
	}
}

func TestBudgetRefusesRecord(t *testing.T) {
	budget := wire.NewBudget(10000)
	small := wire.NewRecordReader(bytes.NewReader(record(4096, strings.Repeat("x", 4096))), wire.FromClient(budget))
	large := wire.NewRecordReader(bytes.NewReader(record(1<<20, strings.Repeat("x", 1<<20))), wire.FromClient(budget))
	if _, err := large.Next(); !errors.Is(err, wire.ErrBudget) || errors.Is(err, wire.ErrProtocol) {
		t.Errorf("large record: error %v", err)
	}
	if used := budget.Used(); used != 0 {
		t.Errorf("%d bytes of the budget are still in use", used)
	}
	if err := budget.Acquire(10000); err != nil {
		t.Fatal(err)
	}
	if _, err := small.Next(); err != nil {
		t.Errorf("small record while the budget is used up: %v", err)
	}
}

func TestReadAll(t *testing.T) {
	const limit = 100000
	text := strings.Repeat("x", limit+1)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name string
		ctx  context.Context
		from io.Reader
		want int
		err  error
	}{
		{"empty", t.Context(), strings.NewReader(""), 0, nil},
		{"short", t.Context(), strings.NewReader("abc"), 3, nil},
		{"buffer's size", t.Context(), strings.NewReader(text[:4096]), 4096, nil},
		{"at the limit", t.Context(), strings.NewReader(text[:limit]), limit, nil},
		{"in halves", t.Context(), iotest.HalfReader(strings.NewReader(text[:limit])), limit, nil},
		{"data with EOF", t.Context(), iotest.DataErrReader(strings.NewReader("abc")), 3, nil},
		{"over the limit", t.Context(), strings.NewReader(text), 0, wire.ErrTooLarge},
		{"cut short", t.Context(), io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(io.ErrUnexpectedEOF)), 0, io.ErrUnexpectedEOF},
		{"no progress", t.Context(), emptyReader{}, 0, io.ErrNoProgress},
		{"cancelled", cancelled, strings.NewReader("abc"), 0, context.Canceled},
	} {
		t.Run(test.name, func(t *testing.T) {
			budget := wire.NewBudget(10 * limit)
			got, err := wire.ReadAll(test.ctx, test.from, limit, budget)
			if !errors.Is(err, test.err) {
				t.Fatalf("error %v, want %v", err, test.err)
			}
			if err == nil {
				if len(got.Bytes()) != test.want {
					t.Errorf("%d bytes, want %d", len(got.Bytes()), test.want)
				}
				got.Release()
			}
			if used := budget.Used(); used != 0 {
				t.Errorf("%d bytes of the budget are still in use", used)
			}
		})
	}
}

// emptyReader breaks the contract of io.Reader in the way that makes loops endless.
type emptyReader struct{}

func (emptyReader) Read([]byte) (int, error) { return 0, nil }

func TestCloseReachesTheBody(t *testing.T) {
	body := &closing{Reader: strings.NewReader("")}
	if err := wire.NewRecordReader(body, wire.FromClient(nil)).Close(); err != nil || !body.closed {
		t.Errorf("closed %v, error %v", body.closed, err)
	}
	if err := wire.NewRecordReader(strings.NewReader(""), wire.FromClient(nil)).Close(); err != nil {
		t.Error(err)
	}
}

type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}
