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

func TestZlibHeader(t *testing.T) {
	for header, want := range map[string]error{
		"789c": nil, "7801": nil, "78da": nil, "785e": nil, "48c7": nil,
		"789d": zlib.ErrHeader, // check bits
		"799b": zlib.ErrHeader, // method 9
		"8898": zlib.ErrHeader, // window of 64 KiB
		"78bb": zlib.ErrHeader, // preset dictionary
		"1f8b": zlib.ErrHeader, // gzip
		"6214": zlib.ErrHeader, // raw deflate
		"78":   io.ErrUnexpectedEOF,
		"":     io.EOF,
	} {
		_, err := wire.NewInflater(bytes.NewReader(unhex(t, header)))
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("header %q: error %v, want %v", header, err, want)
		}
		if errors.Is(err, wire.ErrProtocol) != (want == zlib.ErrHeader) {
			t.Errorf("header %q: ErrProtocol in %v?", header, err)
		}
	}
}

func TestBrokenStreams(t *testing.T) {
	whole := wire.AppendDeflated(nil, []byte(strings.Repeat("content ", 1000)))
	wrongSum := bytes.Clone(whole)
	wrongSum[len(wrongSum)-1]++
	wrongBlock := bytes.Clone(whole)
	wrongBlock[2] |= 0x06 // a block type that does not exist
	for _, test := range []struct {
		name   string
		stream []byte
		want   error
		ours   bool
	}{
		{"wrong checksum", wrongSum, zlib.ErrChecksum, true},
		{"unknown block type", wrongBlock, wire.ErrProtocol, true},
		{"cut in a block", whole[:20], io.ErrUnexpectedEOF, false},
		{"cut before the checksum", whole[:len(whole)-4], io.ErrUnexpectedEOF, false},
		{"cut in the checksum", whole[:len(whole)-1], io.ErrUnexpectedEOF, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			z := mustInflate(t, bytes.NewReader(test.stream))
			_, err := io.Copy(io.Discard, z)
			if !errors.Is(err, test.want) || errors.Is(err, wire.ErrProtocol) != test.ours {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if _, again := z.Read(make([]byte, 1)); again != err || !z.Idle() {
				t.Errorf("reading on: error %v, idle %v", again, z.Idle())
			}
		})
	}
}

// A peer that hangs up after a flushed record has ended the stream in order.
func TestInflaterEndAfterFlush(t *testing.T) {
	var compressed bytes.Buffer
	d := wire.NewDeflater(&compressed)
	d.Write([]byte("one"))
	d.Write([]byte("two"))
	got, err := io.ReadAll(mustInflate(t, &compressed))
	if string(got) != "onetwo" || err != nil {
		t.Errorf("%q, error %v", got, err)
	}
}

func TestInflaterClose(t *testing.T) {
	z := mustInflate(t, bytes.NewReader(wire.AppendDeflated(nil, make([]byte, 100000))))
	if _, err := io.ReadFull(z, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := z.Close(); err != nil || !z.Idle() || z.Held() != 0 {
			t.Errorf("error %v, idle %v, %d bytes held", err, z.Idle(), z.Held())
		}
	}
	if n, err := z.Read(make([]byte, 1)); n != 0 || err == nil || err == io.EOF {
		t.Errorf("after Close: %d bytes, error %v", n, err)
	}
}

// A small body that unpacks to a large one meets the limits of what it unpacks to.
func TestDecompressionBomb(t *testing.T) {
	const size = wire.MaxClientRecord + 1<<20
	var bomb bytes.Buffer
	w := zlib.NewWriter(&bomb)
	for range size >> 20 {
		w.Write(make([]byte, 1<<20))
	}
	w.Close()
	budget := wire.NewBudget(2 * wire.MaxClientRecord)
	_, err := wire.ReadAll(t.Context(), mustInflate(t, &bomb), wire.MaxClientRecord, budget)
	if !errors.Is(err, wire.ErrTooLarge) || budget.Used() != 0 {
		t.Errorf("error %v, %d bytes in use", err, budget.Used())
	}
}
