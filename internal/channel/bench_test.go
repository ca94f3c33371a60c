package channel_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/farspeak/farspeak/internal/channel"
)

var benchSizes = []int{100, 10_000, 2_000_000}

func BenchmarkRead(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			one := frame(b, payload(b, size))
			from := &endless{frame: one}
			r := channel.NewReader(from, channel.Config{})
			b.SetBytes(int64(len(one)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Next(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// endless is a stream of one frame over and over.
type endless struct {
	frame []byte
	at    int
}

func (e *endless) Read(b []byte) (int, error) {
	n := copy(b, e.frame[e.at:])
	e.at = (e.at + n) % len(e.frame)
	return n, nil
}

func BenchmarkWrite(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			m := payload(b, size)
			w := channel.NewWriter(io.Discard)
			b.SetBytes(int64(len(frame(b, m))))
			b.ReportAllocs()
			for b.Loop() {
				if err := w.WriteMessage(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPipe is one direction between two processes, as far as one process can show it.
func BenchmarkPipe(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			in, out, err := os.Pipe()
			if err != nil {
				b.Fatal(err)
			}
			defer in.Close()
			m := payload(b, size)
			b.SetBytes(int64(len(frame(b, m))))
			var reading sync.WaitGroup
			reading.Go(func() {
				r := channel.NewReader(in, channel.Config{})
				for err := r.ReadMagic(); err == nil; _, err = r.Next() {
				}
			})
			w := channel.NewWriter(out)
			if err := w.WriteMagic(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := w.WriteMessage(m); err != nil {
					b.Fatal(err)
				}
			}
			out.Close()
			reading.Wait()
		})
	}
}

// BenchmarkIdleReader is what a connected service costs between messages.
func BenchmarkIdleReader(b *testing.B) {
	b.ReportAllocs()
	stream := fromHex(b, magic+heartbeatFrame)
	for b.Loop() {
		r := channel.NewReader(bytes.NewReader(stream), channel.Config{})
		if err := r.ReadMagic(); err != nil {
			b.Fatal(err)
		}
		if _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
	}
}
