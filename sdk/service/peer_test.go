package service_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	channelpb "github.com/farspeak/farspeak/proto/fleetspeak/channel"
)

// peer plays the agent's side of a connection. It is made from the protocol's description alone and shares no code with
// what it tests: sizes and magic are written and checked here byte by byte.
type peer struct {
	tb  failer
	in  io.Reader // from the service
	out io.Writer // to the service
}

// failer is the part of testing.TB that may be used from any goroutine.
type failer interface {
	Errorf(format string, args ...any)
}

var magic = []byte{0x01, 0x10, 0xee, 0xf1}

// sendMagic and the like fail the test when the service is gone; they may be called from any goroutine.
func (p *peer) sendMagic() { p.write(magic) }

// send writes size, body and magic one by one, as agents do.
func (p *peer) send(m *fspb.Message) {
	p.sendBody(m)
	p.write(magic)
}

// sendBody leaves the magic out.
func (p *peer) sendBody(m *fspb.Message) {
	body, err := proto.Marshal(m)
	if err != nil {
		p.tb.Errorf("peer: %v", err)
	}
	p.write(binary.LittleEndian.AppendUint32(nil, uint32(len(body))))
	p.write(body)
}

func (p *peer) write(b []byte) {
	if _, err := p.out.Write(b); err != nil {
		p.tb.Errorf("peer: write: %v", err)
	}
}

// expectMagic reads the service's first magic.
func (p *peer) expectMagic() { p.expect(magic) }

func (p *peer) expect(want []byte) {
	got := make([]byte, len(want))
	if _, err := io.ReadFull(p.in, got); err != nil || !bytes.Equal(got, want) {
		p.tb.Errorf("peer: read %x, %v; want %x", got, err, want)
	}
}

// receive reads one frame. Its error is io.EOF at an end between frames.
func (p *peer) receive() (*fspb.Message, error) {
	var size [4]byte
	if _, err := io.ReadFull(p.in, size[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(size[:])
	if n > 2097152 {
		return nil, fmt.Errorf("a body of %d bytes", n)
	}
	body := make([]byte, n+4)
	if _, err := io.ReadFull(p.in, body); err != nil {
		return nil, fmt.Errorf("the frame is cut: %w", err)
	}
	if !bytes.Equal(body[n:], magic) {
		return nil, fmt.Errorf("magic %x after the message", body[n:])
	}
	m := &fspb.Message{}
	return m, proto.Unmarshal(body[:n], m)
}

// mustReceive reads one message.
func (p *peer) mustReceive() *fspb.Message {
	m, err := p.receive()
	if err != nil {
		p.tb.Errorf("peer: read: %v", err)
		return &fspb.Message{}
	}
	return m
}

// expectStartup reads the message with which a service introduces itself.
func (p *peer) expectStartup(version string) (pid int64) {
	m := p.mustReceive()
	data := &channelpb.StartupData{}
	if err := m.Data.UnmarshalTo(data); err != nil || m.Destination.GetServiceName() != "system" || m.MessageType != "StartupData" {
		p.tb.Errorf("peer: first message %v, want StartupData", m)
	}
	if data.Version != version {
		p.tb.Errorf("peer: version %q, want %q", data.Version, version)
	}
	return data.Pid
}

// greet does what comes before messages.
func (p *peer) greet(version string) {
	p.expectMagic()
	p.sendMagic()
	p.expectStartup(version)
}

// localAck is what the agent sends when the server has messages.
func localAck(tb failer, ids ...[]byte) *fspb.Message {
	return &fspb.Message{Source: &fspb.Address{ServiceName: "client"}, MessageType: "LocalAck", Data: packed(tb, &fspb.MessageAckData{MessageIds: ids})}
}

// request is a message from the backend to the service.
func request(tb failer, text string) *fspb.Message {
	return &fspb.Message{
		MessageId:   bytes.Repeat([]byte{7}, 32),
		Source:      &fspb.Address{ServiceName: "backend"},
		Destination: &fspb.Address{ClientId: []byte("clientAA"), ServiceName: "test"},
		MessageType: "Text", Data: packed(tb, wrapperspb.String(text)),
	}
}

// toBackend is a message from the service to the backend.
func toBackend(tb failer, text string) *fspb.Message {
	return &fspb.Message{Destination: &fspb.Address{ServiceName: "backend"}, MessageType: "Text", Data: packed(tb, wrapperspb.String(text))}
}

func packed(tb failer, m proto.Message) *anypb.Any {
	data, err := anypb.New(m)
	if err != nil {
		tb.Errorf("pack: %v", err)
	}
	return data
}

// textOf is the text of a message; nothing else fails.
func textOf(m *fspb.Message) string {
	text := &wrapperspb.StringValue{}
	if err := m.GetData().UnmarshalTo(text); err != nil {
		return fmt.Sprintf("no text: %v", err)
	}
	return text.Value
}

// startupFrame is what a service of this process and version writes at first, after the magic.
func startupFrame(tb testing.TB, pid int64, version string) []byte {
	tb.Helper()
	data, err := proto.Marshal(&channelpb.StartupData{Pid: pid, Version: version})
	if err != nil {
		tb.Fatal(err)
	}
	// The frame of the description has the payload at its end, and its lengths before.
	head, err := hex.DecodeString("2208120673797374656d2a0b5374617274757044617461")
	if err != nil {
		tb.Fatal(err)
	}
	url := "type.googleapis.com/fleetspeak.channel.StartupData"
	payload := append([]byte{0x0a, byte(len(url))}, url...)
	payload = append(append(payload, 0x12, byte(len(data))), data...)
	body := append(append(head, 0x3a, byte(len(payload))), payload...)
	return append(append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...), magic...)
}
