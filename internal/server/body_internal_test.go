package server

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http/httputil"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/farspeak/farspeak/internal/wire"
)

func chunkedBody(r io.Reader) *body { return &body{buffer: bufio.NewReader(r), chunked: true} }

func TestBodyDecodesChunks(t *testing.T) {
	tests := map[string]struct {
		framed, want string
		err          error
	}{
		"one":             {"5\r\nhello\r\n0\r\n\r\n", "hello", nil},
		"several":         {"1\r\nh\r\n4;x=y\r\nello\r\n0\r\n\r\n", "hello", nil},
		"upper-case size": {"A\r\n0123456789\r\n0\r\n\r\n", "0123456789", nil},
		"lone line feed":  {"1\nh\r\n0\n\n", "h", nil},
		"cut in data":     {"5\r\nhel", "hel", io.ErrUnexpectedEOF},
		"cut after data":  {"5\r\nhello", "hello", io.ErrUnexpectedEOF},
		"no size":         {"\r\nhello", "", wire.ErrProtocol},
		"bad size":        {"5g\r\nhello", "", wire.ErrProtocol},
		"huge size":       {"fffffffffffffffff\r\n", "", wire.ErrProtocol},
		"no end of chunk": {"1\r\nhello", "h", wire.ErrProtocol},
		"endless line":    {strings.Repeat("0", 5000), "", wire.ErrProtocol},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for kind, reader := range map[string]io.Reader{
				"whole": strings.NewReader(test.framed), "bytewise": iotest.OneByteReader(strings.NewReader(test.framed)),
			} {
				got, err := io.ReadAll(chunkedBody(reader))
				if string(got) != test.want || !errors.Is(err, test.err) {
					t.Errorf("%s: got %q, %v", kind, got, err)
				}
			}
		})
	}
}

func TestBodyOfKnownLength(t *testing.T) {
	for length, want := range map[int64]string{0: "", 3: "hel"} {
		got, err := io.ReadAll(&body{buffer: bufio.NewReader(strings.NewReader("hello")), left: length})
		if string(got) != want || err != nil {
			t.Errorf("length %d: got %q, %v", length, got, err)
		}
	}
	if _, err := io.ReadAll(&body{buffer: bufio.NewReader(strings.NewReader("he")), left: 3}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short body: %v", err)
	}
}

// After a record that was read whole nothing stays in the buffer, so that the session can be parked without it.
func TestBodyLeavesNothingBuffered(t *testing.T) {
	reader, writer := io.Pipe()
	defer reader.Close()
	b := chunkedBody(reader)
	go func() { _, _ = writer.Write([]byte("5\r\nhello\r\n")) }()
	if _, err := io.ReadFull(b, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if b.buffer.Buffered() != 0 || b.ready() {
		t.Errorf("%d bytes are buffered, ready: %v", b.buffer.Buffered(), b.ready())
	}
}

func TestBodyReady(t *testing.T) {
	for framed, want := range map[string]bool{
		"": false, "5": false, "5\r\n": false, "5\r\nh": true, "0\r\n": true, "x\r\n": true,
	} {
		b := chunkedBody(strings.NewReader(framed))
		_, _ = b.buffer.Peek(1)
		if got := b.ready(); got != want {
			t.Errorf("%q: ready %v, want %v", framed, got, want)
		}
	}
}

// Whatever our decoder takes, the library's takes the same way; neither panics.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{"5\r\nhello\r\n0\r\n\r\n", "1;a\r\nx\r\n", "ffffffff\r\n", "\r\n", "0\r\n\r\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, framed []byte) {
		got, err := io.ReadAll(chunkedBody(bytes.NewReader(framed)))
		want, wantErr := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(framed)))
		if err == nil && wantErr == nil && !bytes.Equal(got, want) {
			t.Errorf("got %q, the library %q", got, want)
		}
	})
}
