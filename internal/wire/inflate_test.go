package wire_test

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
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
