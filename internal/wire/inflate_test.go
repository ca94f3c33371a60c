package wire_test

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/farspeak/farspeak/internal/wire"
)

// pieces is a connection on which each piece arrives after the one before was used up. Read fails when there is none.
type pieces struct {
	left  []byte
	asked int // how often Read was called with nothing left
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		p.asked++
		return 0, errWaiting
	}
	n := copy(b, p.left)
	p.left = p.left[n:]
	return n, nil
}

func mustInflate(tb testing.TB, r io.Reader) *wire.Inflater {
	tb.Helper()
	z, err := wire.NewInflater(r)
	if err != nil {
		tb.Fatal(err)
	}
	return z
}

// content makes pieces of many sizes, which refer back to one another, hardly compress, or compress well.
func content(random *rand.Rand) [][]byte {
	var all [][]byte
	var history []byte
	for _, size := range []int{1, 3, 200, 500, 5000, 1, 40000, 100, 32768, 7, 32767, 70000, 300, 300} {
		piece := make([]byte, size)
		switch start := random.IntN(len(history) + 1); random.IntN(3) {
		case 0:
			for i := range piece {
				piece[i] = byte(random.Uint32())
			}
		case 1:
			copy(piece, history[start:])
		default:
			for i := range piece {
				piece[i] = "fleet"[random.IntN(5)]
			}
		}
		history = append(history, piece...)
		all = append(all, piece)
	}
	return all
}

// Each flushed piece can be read before anything follows, whatever the sender's compressor does, and then the decompressor
// goes back to the pool until the next piece.
func TestInflaterWaitsForNothing(t *testing.T) {
	for _, level := range []int{flate.HuffmanOnly, flate.NoCompression, flate.BestSpeed, flate.DefaultCompression, flate.BestCompression} {
		t.Run(fmt.Sprint("level ", level), func(t *testing.T) {
			var compressed bytes.Buffer
			sender, err := zlib.NewWriterLevel(&compressed, level)
			if err != nil {
				t.Fatal(err)
			}
			source := &onDemand{}
			var z *wire.Inflater
			for i, want := range content(rand.New(rand.NewPCG(1, uint64(level)))) {
				sender.Write(want)
				if err := sender.Flush(); err != nil {
					t.Fatal(err)
				}
				source.Write(compressed.Next(compressed.Len()))
				if z == nil {
					z = mustInflate(t, source)
				}
				got := make([]byte, len(want))
				if _, err := io.ReadFull(z, got); err != nil {
					t.Fatalf("piece %d of %d bytes: %v", i, len(want), err)
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("piece %d of %d bytes differs", i, len(want))
				}
				source.expectWait(t, z)
			}
			if err := sender.Close(); err != nil {
				t.Fatal(err)
			}
			source.Write(compressed.Bytes())
			if n, err := z.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("at the end: %d bytes, error %v", n, err)
			}
		})
	}
}

// onDemand is a source to which a test adds, and which tells through a panic that it would block.
type onDemand struct{ bytes.Buffer }

type wouldBlock struct{}

func (o *onDemand) Read(p []byte) (int, error) {
	if o.Len() == 0 {
		panic(wouldBlock{})
	}
	return o.Buffer.Read(p)
}

// expectWait reads on, and expects that the Inflater waits for input without holding a decompressor.
func (o *onDemand) expectWait(t *testing.T, z *wire.Inflater) {
	t.Helper()
	defer func() {
		if cause := recover(); cause != (wouldBlock{}) {
			t.Fatalf("reading on: %v, want it to wait", cause)
		}
		if !z.Idle() {
			t.Error("a decompressor is held while there is nothing to decompress")
		}
		if z.Held() > 48<<10 {
			t.Errorf("%d bytes of history are held", z.Held())
		}
	}()
	n, err := z.Read(make([]byte, 10))
	panic(fmt.Sprintf("%d bytes, error %v", n, err))
}

// The rhythm in which input arrives and output is taken makes no difference.
func TestInflaterInAnyRhythm(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 2))
	var compressed bytes.Buffer
	sender := zlib.NewWriter(&compressed)
	var want []byte
	for _, piece := range content(random) {
		sender.Write(piece)
		if random.IntN(2) == 0 {
			sender.Flush()
		}
		want = append(want, piece...)
	}
	sender.Close()
	for name, slow := range map[string]func(io.Reader) io.Reader{
		"at once":        func(r io.Reader) io.Reader { return r },
		"bytewise":       iotest.OneByteReader,
		"in halves":      iotest.HalfReader,
		"EOF with data":  iotest.DataErrReader,
		"random lengths": func(r io.Reader) io.Reader { return &randomReader{r, random} },
	} {
		t.Run(name, func(t *testing.T) {
			z := mustInflate(t, slow(bytes.NewReader(compressed.Bytes())))
			got, err := io.ReadAll(&randomReader{z, random})
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, want %d, or other content; error %v", len(got), len(want), err)
			}
			if !z.Idle() {
				t.Error("a decompressor is held after the end")
			}
		})
	}
}

type randomReader struct {
	io.Reader
	random *rand.Rand
}

func (r *randomReader) Read(p []byte) (int, error) {
	return r.Reader.Read(p[:min(len(p), 1+r.random.IntN(2000))])
}

func TestInflaterVector(t *testing.T) {
	z := mustInflate(t, &pieces{left: unhex(t, "789c621478f791858b898315000000ffff")})
	r := wire.NewRecordReader(z, wire.FromClient(nil))
	if err := r.ReadMagic(); err != nil {
		t.Fatal(err)
	}
	got, err := r.Next()
	if err != nil || !bytes.Equal(got.Bytes(), unhex(t, "0a020805")) {
		t.Errorf("record %v, error %v", got, err)
	}
}

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

// An idle stream costs its history and little more.
func TestIdleInflatersAreSmall(t *testing.T) {
	const streams = 500
	var compressed bytes.Buffer
	sender := wire.NewDeflater(&compressed)
	sender.Write(wire.AppendRecord(wire.AppendMagic(nil), bytes.Repeat([]byte("label "), 50)))
	idle := make([]*wire.RecordReader, streams)
	before := heap()
	for i := range idle {
		idle[i] = wire.NewRecordReader(mustInflate(t, &pieces{left: compressed.Bytes()}), wire.FromClient(nil))
		if err := idle[i].ReadMagic(); err != nil {
			t.Fatal(err)
		}
		record, err := idle[i].Next()
		if err != nil {
			t.Fatal(err)
		}
		record.Release()
		if _, err := idle[i].Next(); !errors.Is(err, errWaiting) {
			t.Fatal(err)
		}
	}
	if each := (heap() - before) / streams; each > 2<<10 {
		t.Errorf("%d bytes for each idle stream", each)
	}
	runtime.KeepAlive(idle)
}

func heap() int64 {
	runtime.GC()
	runtime.GC() // the second one empties what pools kept over the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

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

func TestDecodeEncoding(t *testing.T) {
	for _, test := range []struct {
		values []string
		want   wire.Encoding
		ok     bool
	}{
		{nil, wire.EncodingNone, true},
		{[]string{""}, wire.EncodingNone, true},
		{[]string{"deflate"}, wire.EncodingDeflate, true},
		{[]string{"Deflate"}, 0, false},
		{[]string{"deflate "}, 0, false},
		{[]string{"deflate, deflate"}, 0, false},
		{[]string{"gzip"}, 0, false},
		{[]string{"identity"}, 0, false},
		{[]string{strings.Repeat("x", 1<<16)}, 0, false},
	} {
		got, err := wire.DecodeEncoding(http.Header{"Content-Encoding": test.values})
		if got != test.want || (err == nil) != test.ok || (err != nil && !errors.Is(err, wire.ErrUnsupportedEncoding)) {
			t.Errorf("%.20q: encoding %v, error %v", test.values, got, err)
		}
		if err != nil && len(err.Error()) > 200 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	}
	for _, encoding := range []wire.Encoding{wire.EncodingNone, wire.EncodingDeflate} {
		header := make(http.Header)
		encoding.SetHeader(header)
		if got, err := wire.DecodeEncoding(header); got != encoding || err != nil {
			t.Errorf("encoding %v comes back as %v, error %v", encoding, got, err)
		}
	}
}

func TestNewBody(t *testing.T) {
	for _, test := range []struct {
		encoding wire.Encoding
		body     string
		want     string
		ok       bool
	}{
		{wire.EncodingNone, "plain", "plain", true},
		{wire.EncodingDeflate, string(wire.AppendDeflated(nil, []byte("packed"))), "packed", true},
		{wire.EncodingDeflate, "plain", "", false},
	} {
		body, err := wire.NewBody(strings.NewReader(test.body), test.encoding)
		if !test.ok {
			if !errors.Is(err, wire.ErrProtocol) || body != nil {
				t.Errorf("%q: body %v, error %v", test.body, body, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(body); string(got) != test.want || err != nil {
			t.Errorf("%q, error %v, want %q", got, err, test.want)
		}
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	}
}
