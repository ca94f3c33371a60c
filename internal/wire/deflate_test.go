package wire_test

import (
	"bytes"
	"compress/zlib"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/farspeak/farspeak/internal/wire"
)

func TestDeflaterFlushesEachRecord(t *testing.T) {
	var out writes
	d := wire.NewDeflater(&out)
	w := wire.NewRecordWriter(d, wire.ToServer())
	bodies := []string{"first", strings.Repeat("second ", 10000), "third"}
	source := &onDemand{}
	var r *wire.RecordReader
	for i, body := range bodies {
		if err := w.WriteRecord([]byte(body)); err != nil {
			t.Fatal(err)
		}
		if len(out.parts) != i+1 {
			t.Fatalf("%d writes for %d records", len(out.parts), i+1)
		}
		source.Write(out.parts[i])
		if r == nil {
			r = wire.NewRecordReader(mustInflate(t, source), wire.FromClient(nil))
			if err := r.ReadMagic(); err != nil {
				t.Fatal(err)
			}
		}
		got, err := r.Next()
		if err != nil || string(got.Bytes()) != body {
			t.Fatalf("record %d: error %v", i, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Write([]byte("late")); err == nil {
		t.Error("Write after Close succeeds")
	}
	// The standard library, which checks the sum over all of it, agrees.
	z, err := zlib.NewReader(bytes.NewReader(bytes.Join(out.parts, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(z); err != nil || len(all) < 70000 {
		t.Errorf("%d bytes, error %v", len(all), err)
	}
}

func TestDeflaterErrorIsFinal(t *testing.T) {
	out := writes{failAt: 2}
	d := wire.NewDeflater(&out)
	if n, err := d.Write(nil); n != 0 || err != nil || len(out.parts) != 0 {
		t.Errorf("writing nothing: %d bytes, error %v, %d writes", n, err, len(out.parts))
	}
	if _, err := d.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_, first := d.Write([]byte("y"))
	if !errors.Is(first, io.ErrShortWrite) {
		t.Fatalf("error %v", first)
	}
	out.failAt = 0
	if _, err := d.Write([]byte("z")); err != first || d.Close() != first || len(out.parts) != 1 {
		t.Errorf("after a failed write: error %v, %d writes", err, len(out.parts))
	}
}

func TestAppendDeflated(t *testing.T) {
	for _, size := range []int{0, 1, 1000, 3 << 20} {
		body := bytes.Repeat([]byte("x"), size)
		z, err := zlib.NewReader(bytes.NewReader(wire.AppendDeflated(nil, body)))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes came back as %d, error %v", size, len(got), err)
		}
	}
	if got := wire.AppendDeflated([]byte("before"), nil); !bytes.HasPrefix(got, []byte("before\x78\x9c")) {
		t.Errorf("appended: %x", got)
	}
}
