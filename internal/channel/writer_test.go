package channel_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/channel"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	channelpb "github.com/farspeak/farspeak/proto/fleetspeak/channel"
)

// pieces records each Write.
type pieces struct {
	all []string
	err error
}

func (p *pieces) Write(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	p.all = append(p.all, hex.EncodeToString(b))
	return len(b), nil
}

func TestWritesFramesOfTheDescription(t *testing.T) {
	p := &pieces{}
	w := channel.NewWriter(p)
	if err := w.WriteMagic(); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*fspb.Message{
		channel.Heartbeat(), channel.Startup(42, "0.5"), channel.LocalAck([][]byte{[]byte("AAABBBCCC")}), {},
	} {
		if err := w.WriteMessage(m); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{magic, heartbeatFrame, startupFrame, localAckFrame, "00000000" + magic}
	if strings.Join(p.all, " ") != strings.Join(want, " ") { // the borders of the writes count
		t.Errorf("wrote\n%s\nwant\n%s", strings.Join(p.all, "\n"), strings.Join(want, "\n"))
	}
}

func TestLimitOfWriter(t *testing.T) {
	p := &pieces{}
	w := channel.NewWriter(p)
	large := messageOf(t, channel.MaxMessage)
	if err := w.WriteMessage(large); err != nil {
		t.Errorf("the largest message: %v", err)
	}
	large.SourceMessageId = append(large.SourceMessageId, 0)
	if err := w.WriteMessage(large); !errors.Is(err, channel.ErrTooLarge) {
		t.Errorf("one byte more: error %v, want ErrTooLarge", err)
	}
	if err := w.WriteMessage(&fspb.Message{MessageType: "\xff"}); err == nil {
		t.Error("a name that is no text was written")
	}
	if err := w.WriteMessage(channel.Heartbeat()); err != nil || len(p.all) != 2 || p.all[1] != heartbeatFrame {
		t.Errorf("after refusals: %v, and %d writes, want 2", err, len(p.all))
	}
}

func TestWriteErrorIsFinal(t *testing.T) {
	broken := errors.New("broken")
	p := &pieces{err: broken}
	w := channel.NewWriter(p)
	if err := w.WriteMessage(channel.Heartbeat()); !errors.Is(err, broken) {
		t.Errorf("error %v, want the transport's", err)
	}
	p.err = nil
	if err := w.WriteMessage(channel.Heartbeat()); !errors.Is(err, broken) || len(p.all) != 0 {
		t.Errorf("error %v and %q, want nothing after a frame that may have been cut", err, p.all)
	}
}

func TestAppendFrameKeepsWhatIsThere(t *testing.T) {
	got, err := channel.AppendFrame([]byte("before"), channel.Heartbeat())
	if want := append([]byte("before"), fromHex(t, heartbeatFrame)...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %x, %v, want %x", got, err, want)
	}
}

func TestMessagesForTheAgent(t *testing.T) {
	if s, err := channel.ReadStartup(channel.Startup(7, "a\xffb")); err != nil || !proto.Equal(s, &channelpb.StartupData{Pid: 7, Version: "a\uFFFDb"}) {
		t.Errorf("StartupData %v, %v", s, err)
	}
	other := &fspb.Message{Source: &fspb.Address{ServiceName: "client"}, Destination: &fspb.Address{ServiceName: "system"}, MessageType: "Other"}
	ofSink := channel.LocalAck(nil)
	ofSink.Source.ServiceName = "sink"
	for name, c := range map[string]struct{ got, want bool }{
		"startup to system":            {channel.IsSystem(channel.Startup(1, "")), true},
		"heartbeat is no startup":      {channel.IsStartup(channel.Heartbeat()), false},
		"startup is no heartbeat":      {channel.IsHeartbeat(channel.Startup(1, "")), false},
		"another type":                 {channel.IsStartup(other) || channel.IsHeartbeat(other) || channel.IsLocalAck(other), false},
		"acknowledgement of a service": {channel.IsLocalAck(ofSink), false},
		"empty message":                {channel.IsSystem(&fspb.Message{}) || channel.IsLocalAck(&fspb.Message{}), false},
	} {
		if c.got != c.want {
			t.Errorf("%s: %t", name, c.got)
		}
	}
	if _, err := channel.ReadStartup(&fspb.Message{}); err == nil {
		t.Error("no StartupData was read")
	}
	if _, err := channel.ReadLocalAck(channel.Startup(1, "")); err == nil {
		t.Error("StartupData was read as MessageAckData")
	}
}
