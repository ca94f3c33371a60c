package wire_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/farspeak/farspeak/internal/wire"
)

// again reads the same bytes without end.
type again struct {
	data []byte
	at   int
}

func (a *again) Read(p []byte) (int, error) {
	if a.at == len(a.data) {
		a.at = 0
	}
	n := copy(p, a.data[a.at:])
	a.at += n
	return n, nil
}

func BenchmarkRecordReader(b *testing.B) {
	for _, size := range []int{300, 64 << 10, 2 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			from := &again{data: wire.AppendRecord(nil, make([]byte, size))}
			reader := wire.NewRecordReader(from, wire.FromClient(wire.NewBudget(1<<30)))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				record, err := reader.Next()
				if err != nil {
					b.Fatal(err)
				}
				record.Release()
			}
		})
	}
}

func BenchmarkRecordWriter(b *testing.B) {
	for _, size := range []int{300, 64 << 10, 2 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			writer := wire.NewRecordWriter(io.Discard, wire.ToServer())
			body := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := writer.WriteRecord(body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendContactData(b *testing.B) {
	messages := make([][]byte, wire.MaxMessagesPerRecord)
	for i := range messages {
		messages[i] = make([]byte, 200)
	}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = wire.AppendContactData(dst[:0], 1<<63, messages)
	}
}

// BenchmarkInflateRecords is a session that is idle between its records.
func BenchmarkInflateRecords(b *testing.B) {
	for _, size := range []int{300, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var out bytes.Buffer
			d := wire.NewDeflater(&out)
			d.Write([]byte{0})
			out.Next(out.Len()) // with the header, which comes once
			body := bytes.Repeat([]byte("fleet "), size/6)
			d.Write(wire.AppendRecord(nil, body))
			z, err := wire.NewInflater(io.MultiReader(bytes.NewReader([]byte{0x78, 0x9c}), &again{data: out.Bytes()}))
			if err != nil {
				b.Fatal(err)
			}
			reader := wire.NewRecordReader(z, wire.FromClient(nil))
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				record, err := reader.Next()
				if err != nil {
					b.Fatal(err)
				}
				record.Release()
			}
		})
	}
}

func BenchmarkDeflateRecord(b *testing.B) {
	d := wire.NewDeflater(io.Discard)
	body := bytes.Repeat([]byte("fleet "), 50)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Write(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTokens(b *testing.B) {
	tokens := startTokens(grant{"system": 100, "echo": 100, "files": 100, "osquery": 100})
	returned := grant{"system": 1, "echo": 1}
	b.ReportAllocs()
	for b.Loop() {
		tokens.Take("system")
		tokens.Take("echo")
		tokens.Add(returned)
		tokens.Allowance("osquery")
	}
}

func BenchmarkBudget(b *testing.B) {
	budget := wire.NewBudget(1 << 30)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := budget.Acquire(8192); err != nil {
				b.Error(err)
				return
			}
			budget.Release(8192)
		}
	})
}
