//go:build unix

package service_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	channelpb "github.com/farspeak/farspeak/proto/fleetspeak/channel"
)

// rawPeer is the far end of the protocol.
type rawPeer struct {
	in  io.Reader
	out io.Writer
}

func openRawPeer() (*rawPeer, error) {
	in, err := descriptorOf("FLEETSPEAK_COMMS_CHANNEL_INFD")
	if err != nil {
		return nil, err
	}
	out, err := descriptorOf("FLEETSPEAK_COMMS_CHANNEL_OUTFD")
	return &rawPeer{in: in, out: out}, err
}

func descriptorOf(variable string) (*os.File, error) {
	n, err := strconv.Atoi(os.Getenv(variable))
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(n), variable), nil
}

var magic = []byte{0x01, 0x10, 0xee, 0xf1}

func (p *rawPeer) bytes(b []byte) error {
	_, err := p.out.Write(b)
	return err
}

func (p *rawPeer) raw(parts ...string) error {
	for _, part := range parts {
		b, err := hex.DecodeString(part)
		if err != nil {
			return err
		}
		if err := p.bytes(b); err != nil {
			return err
		}
	}
	return nil
}

func (p *rawPeer) send(m *fspb.Message) error {
	body, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	frame := binary.LittleEndian.AppendUint32(nil, uint32(len(body)))
	return p.bytes(append(append(frame, body...), magic...))
}

func (p *rawPeer) text(kind, text string) error {
	data, err := anypb.New(wrapperspb.String(text))
	if err != nil {
		return err
	}
	return p.send(&fspb.Message{Destination: &fspb.Address{ServiceName: "backend"}, MessageType: kind, Data: data})
}

// introduceThen writes magic and StartupData before it reads, as the Python connector does, and then goes on.
func (p *rawPeer) introduceThen(pid int, version string, then func() error) error {
	if err := p.bytes(magic); err != nil {
		return err
	}
	data, err := anypb.New(&channelpb.StartupData{Pid: int64(pid), Version: version})
	if err != nil {
		return err
	}
	m := &fspb.Message{Destination: &fspb.Address{ServiceName: "system"}, MessageType: "StartupData", Data: data}
	if err := p.send(m); err != nil {
		return err
	}
	if err := p.expect(magic); err != nil {
		return err
	}
	return then()
}

func (p *rawPeer) expect(want []byte) error {
	got := make([]byte, len(want))
	if _, err := io.ReadFull(p.in, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("got %x, want %x", got, want)
	}
	return nil
}

// receive reads one message with its magic. io.EOF is an orderly end.
func (p *rawPeer) receive() (*fspb.Message, error) {
	var size [4]byte
	if _, err := io.ReadFull(p.in, size[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.LittleEndian.Uint32(size[:]))
	if _, err := io.ReadFull(p.in, body); err != nil {
		return nil, err
	}
	m := &fspb.Message{}
	if err := proto.Unmarshal(body, m); err != nil {
		return nil, err
	}
	return m, p.expect(magic)
}

func (p *rawPeer) untilEnd() error {
	for {
		if _, err := p.receive(); err != nil {
			return atEnd(err)
		}
	}
}

func atEnd(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}
