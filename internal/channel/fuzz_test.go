package channel_test

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/channel"
)

// FuzzReader: however a stream is cut into reads, the same comes of it, and what comes of it can be written and read again.
func FuzzReader(f *testing.F) {
	for _, text := range []string{
		magic, magic + heartbeatFrame + startupFrame, magic + localAckFrame, magic + "00000000" + magic,
		magic + "00002000" + "2208", magic + "ffffffff", magic + "02000000" + "ffff" + magic,
	} {
		f.Add(fromHex(f, text))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		messages, err := readAll(bytes.NewReader(stream))
		slowly, slowErr := readAll(iotest.OneByteReader(bytes.NewReader(stream)))
		if len(messages) != len(slowly) || err.Error() != slowErr.Error() {
			t.Fatalf("bytewise: %d messages, %v; at once: %d, %v", len(slowly), slowErr, len(messages), err)
		}
		rebuilt := fromHex(t, magic)
		for i, m := range messages {
			if !proto.Equal(m, slowly[i]) {
				t.Errorf("message %d: bytewise %v, at once %v", i, slowly[i], m)
			}
			if rebuilt, err = channel.AppendFrame(rebuilt, m); err != nil {
				t.Fatal(err)
			}
		}
		if again, err := readAll(bytes.NewReader(rebuilt)); err != io.EOF || len(again) != len(messages) {
			t.Errorf("written and read again: %d messages, %v; want %d", len(again), err, len(messages))
		}
	})
}
