package channel_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/farspeak/farspeak/internal/channel"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

const magic = "0110eef1"

// The frames that the protocol's description gives, without the magic before the first.
const (
	heartbeatFrame = "15000000" + "2208120673797374656d2a09486561727462656174" + magic
	startupFrame   = "56000000" + // process 42, version 0.5
		"2208120673797374656d2a0b53746172747570446174613a3d0a32747970652e676f6f676c65617069732e636f6d2f666c656574737065616b2e6368616e6e656c2e53746172747570446174611207082a1203302e35" + magic
	localAckFrame = "52000000" + // of AAABBBCCC
		"12081206636c69656e742a084c6f63616c41636b3a3c0a2d747970652e676f6f676c65617069732e636f6d2f666c656574737065616b2e4d65737361676541636b44617461120b0a09414141424242434343" + magic
)

func fromHex(tb testing.TB, text string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// readAll reads a whole stream and returns its messages and the error at its end.
func readAll(from io.Reader) (messages []*fspb.Message, err error) {
	r := channel.NewReader(from, channel.Config{})
	if err := r.ReadMagic(); err != nil {
		return nil, err
	}
	for {
		m, err := r.Next()
		if err != nil {
			return messages, err
		}
		messages = append(messages, m)
	}
}

// payload is a message with size bytes of data, and some more.
func payload(tb testing.TB, size int) *fspb.Message {
	tb.Helper()
	data, err := anypb.New(wrapperspb.Bytes(bytes.Repeat([]byte("x"), size)))
	if err != nil {
		tb.Fatal(err)
	}
	return &fspb.Message{Destination: &fspb.Address{ServiceName: "sink"}, Data: data}
}

// messageOf is a message whose serialized form has exactly size bytes.
func messageOf(tb testing.TB, size int) *fspb.Message {
	tb.Helper()
	m := payload(tb, size-100)
	m.SourceMessageId = make([]byte, size-proto.Size(m)-2) // tag and length
	if proto.Size(m) != size {
		tb.Fatalf("message of %d bytes, want %d", proto.Size(m), size)
	}
	return m
}

func frame(tb testing.TB, m *fspb.Message) []byte {
	tb.Helper()
	b, err := channel.AppendFrame(nil, m)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestReadsFramesOfTheDescription(t *testing.T) {
	stream := fromHex(t, magic+heartbeatFrame+startupFrame+localAckFrame)
	for name, from := range map[string]io.Reader{
		"at once":           bytes.NewReader(stream),
		"bytewise":          iotest.OneByteReader(bytes.NewReader(stream)),
		"in halves":         iotest.HalfReader(bytes.NewReader(stream)),
		"data with the end": iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		got, err := readAll(from)
		if err != io.EOF || len(got) != 3 {
			t.Fatalf("%s: %d messages, error %v; want 3 and io.EOF", name, len(got), err)
		}
		if !channel.IsHeartbeat(got[0]) || !channel.IsStartup(got[1]) || !channel.IsLocalAck(got[2]) {
			t.Errorf("%s: got %v", name, got)
		}
		if s, err := channel.ReadStartup(got[1]); err != nil || s.Pid != 42 || s.Version != "0.5" {
			t.Errorf("%s: StartupData %v, error %v", name, s, err)
		}
		if ids, err := channel.ReadLocalAck(got[2]); err != nil || len(ids) != 1 || string(ids[0]) != "AAABBBCCC" {
			t.Errorf("%s: LocalAck of %q, error %v", name, ids, err)
		}
	}
}

func TestEmptyMessage(t *testing.T) {
	got, err := readAll(bytes.NewReader(fromHex(t, magic+"00000000"+magic)))
	if err != io.EOF || len(got) != 1 || proto.Size(got[0]) != 0 {
		t.Errorf("got %v, %v; want an empty message and io.EOF", got, err)
	}
}

func TestBadStreams(t *testing.T) {
	for name, c := range map[string]struct {
		stream   string
		messages int
		want     error
	}{
		"nothing":                      {"", 0, io.ErrUnexpectedEOF},
		"half a first magic":           {"0110", 0, io.ErrUnexpectedEOF},
		"wrong first magic":            {"f1ee1001", 0, channel.ErrMagic},
		"text":                         {hex.EncodeToString([]byte("Traceback (most recent call last):")), 0, channel.ErrMagic},
		"magic only":                   {magic, 0, io.EOF},
		"half a size":                  {magic + "1500", 0, io.ErrUnexpectedEOF},
		"size without body":            {magic + "15000000", 0, io.ErrUnexpectedEOF},
		"half a body":                  {magic + "15000000" + "22081206", 0, io.ErrUnexpectedEOF},
		"no magic at the end":          {magic + heartbeatFrame[:len(heartbeatFrame)-8], 1, io.ErrUnexpectedEOF},
		"half a magic at the end":      {magic + heartbeatFrame[:len(heartbeatFrame)-2], 1, io.ErrUnexpectedEOF},
		"wrong magic after a message":  {magic + heartbeatFrame[:len(heartbeatFrame)-8] + "00000000", 1, channel.ErrMagic},
		"size over the limit":          {magic + "01002000", 0, channel.ErrTooLarge},
		"largest size":                 {magic + "ffffffff", 0, channel.ErrTooLarge},
		"largest allowed size":         {magic + "00002000", 0, io.ErrUnexpectedEOF},
		"body that is no message":      {magic + "02000000" + "ffff" + magic, 0, channel.ErrMessage},
		"name that is no text":         {magic + "03000000" + "2a01ff" + magic, 0, channel.ErrMessage},
		"good after bad is not looked": {magic + "02000000" + "ffff" + magic + heartbeatFrame, 0, channel.ErrMessage},
	} {
		for way, from := range map[string]io.Reader{
			"at once":  bytes.NewReader(fromHex(t, c.stream)),
			"bytewise": iotest.OneByteReader(bytes.NewReader(fromHex(t, c.stream))),
		} {
			got, err := readAll(from)
			if len(got) != c.messages || !errors.Is(err, c.want) || c.want == io.EOF && err != io.EOF {
				t.Errorf("%s, %s: %d messages, error %v; want %d and %v", name, way, len(got), err, c.messages, c.want)
			}
			peers := errors.Is(c.want, channel.ErrProtocol)
			if errors.Is(err, channel.ErrProtocol) != peers {
				t.Errorf("%s: error %v, a violation: %t", name, err, peers)
			}
		}
	}
}

func TestFirstErrorIsTheLast(t *testing.T) {
	r := channel.NewReader(bytes.NewReader(fromHex(t, "00000000"+magic+heartbeatFrame)), channel.Config{})
	first := r.ReadMagic()
	if _, err := r.Next(); !errors.Is(first, channel.ErrMagic) || err != first || r.ReadMagic() != first {
		t.Errorf("first error %v, then %v", first, err)
	}
}

func TestLargestMessage(t *testing.T) {
	want := messageOf(t, channel.MaxMessage)
	stream := append(fromHex(t, magic), frame(t, want)...)
	stream = append(stream, fromHex(t, heartbeatFrame)...)
	got, err := readAll(iotest.HalfReader(bytes.NewReader(stream)))
	if err != io.EOF || len(got) != 2 || !proto.Equal(got[0], want) || !channel.IsHeartbeat(got[1]) {
		t.Errorf("%d messages, error %v; want the large one, a heartbeat and io.EOF", len(got), err)
	}
}

// TestAnnouncedSizeIsNotAllocated guards against peers that cost memory without sending anything (G-03).
func TestAnnouncedSizeIsNotAllocated(t *testing.T) {
	stream := fromHex(t, magic+"00002000"+"22")
	var before, after runtime.MemStats
	const streams = 100
	runtime.ReadMemStats(&before)
	for range streams {
		if _, err := readAll(bytes.NewReader(stream)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	perStream := (after.TotalAlloc - before.TotalAlloc) / streams
	if perStream > 16<<10 {
		t.Errorf("%d bytes allocated for a body of which one byte came", perStream)
	}
}

// TestHandOverBeforeMagic: a message counts when its body is there. The magic of net.Pipe's other side is never written.
func TestHandOverBeforeMagic(t *testing.T) {
	here, there := net.Pipe()
	var writing sync.WaitGroup
	defer writing.Wait()
	defer here.Close()
	defer there.Close()
	writing.Go(func() { there.Write(fromHex(t, magic+heartbeatFrame[:len(heartbeatFrame)-8])) })
	r := channel.NewReader(here, channel.Config{})
	if err := r.ReadMagic(); err != nil {
		t.Fatal(err)
	}
	if m, err := r.Next(); err != nil || !channel.IsHeartbeat(m) {
		t.Errorf("got %v, %v before the magic came", m, err)
	}
}

func TestDeadlines(t *testing.T) {
	const timeout = 5 * time.Minute
	for name, c := range map[string]struct {
		stream string
		first  time.Duration // deadline of the first magic from the start; 0 is the usual one
		want   time.Duration // 0 is never
	}{
		"no first magic":          {"", 0, timeout},
		"first magic, own clock":  {"", time.Minute, time.Minute},
		"half a first magic":      {"0110", 0, timeout},
		"between frames":          {magic, 0, 0},
		"between frames, later":   {magic + heartbeatFrame, 0, 0},
		"in a size":               {magic + "15", 0, timeout},
		"no body":                 {magic + "15000000", 0, timeout},
		"half a body":             {magic + "15000000" + "2208", 0, timeout},
		"no magic after":          {magic + heartbeatFrame[:len(heartbeatFrame)-8], 0, timeout},
		"half a magic after":      {magic + heartbeatFrame[:len(heartbeatFrame)-2], 0, timeout},
		"no magic after a second": {magic + heartbeatFrame + heartbeatFrame[:len(heartbeatFrame)-8], 0, timeout},
	} {
		for _, own := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testDeadline(t, fromHex(t, c.stream), own, c.first, c.want) })
			})
		}
	}
}

// testDeadline sends a stream and then nothing, and looks how long a Reader waits. Where own is false the Reader's source
// has no deadlines.
func testDeadline(t *testing.T, stream []byte, own bool, first, want time.Duration) {
	here, there := net.Pipe()
	var from io.Reader = here
	if !own {
		from = struct{ io.Reader }{here}
	}
	go there.Write(stream)
	begin := time.Now()
	cfg := channel.Config{Expired: func() { here.Close() }}
	if first != 0 {
		cfg.FirstMagic = begin.Add(first)
	}
	if want == 0 {
		give := time.AfterFunc(24*time.Hour, func() { there.Close() })
		defer give.Stop()
	}
	r := channel.NewReader(from, cfg)
	err := r.ReadMagic()
	for err == nil {
		_, err = r.Next()
	}
	waited := time.Since(begin)
	here.Close()
	there.Close()
	switch {
	case want == 0 && (err != io.EOF || waited != 24*time.Hour):
		t.Errorf("error %v after %v, want io.EOF when the peer left", err, waited)
	case want != 0 && (!errors.Is(err, os.ErrDeadlineExceeded) || waited != want):
		t.Errorf("error %v after %v, want the deadline after %v", err, waited, want)
	}
}

// TestSlowReceiverIsNoSlowPeer: the time between two calls of Next does not count.
func TestSlowReceiverIsNoSlowPeer(t *testing.T) {
	for _, own := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			defer here.Close()
			defer there.Close()
			var from io.Reader = here
			if !own {
				from = struct{ io.Reader }{here}
			}
			go func() {
				there.Write(fromHex(t, magic+heartbeatFrame[:len(heartbeatFrame)-8]))
				there.Write(fromHex(t, magic+heartbeatFrame))
			}()
			r := channel.NewReader(from, channel.Config{Expired: func() { t.Error("deadline passed while nobody read") }})
			if err := r.ReadMagic(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := r.Next(); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Hour) // in the bubble: a receiver that is busy
			}
		})
	}
}

// TestPipe: with the pipes of the system, deadlines come from them.
func TestPipe(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	r := channel.NewReader(in, channel.Config{Timeout: 10 * time.Millisecond})
	if err := r.ReadMagic(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error %v, want the deadline", err)
	}
}
