//go:build unix

package service_test

import (
	"errors"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/agent/service"
	"github.com/farspeak/farspeak/internal/channel"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	socketpb "github.com/farspeak/farspeak/proto/fleetspeak/socketservice"
)

func TestSocketAcknowledgesWhatTheServerHas(t *testing.T) {
	t.Parallel()
	d, path := newDesk(), socketPath(t)
	d.manual = true
	startSocket(t, d, &socketpb.Config{ApiProxyPath: path}, service.Timing{})
	p, conn := connect(t, path)
	for i := range 50 {
		sendNumbered(t, p, strconv.Itoa(i), 50)
	}
	d.next(t, 49)
	if err := conn.SetReadDeadline(time.Now().Add(250 * time.Millisecond)); err != nil { // above the delay of acknowledgements
		t.Fatal(err)
	}
	if m, err := p.receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v, %v", m, err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	d.acceptAll()
	if ids := receiveAck(t, p); len(ids) != 50 || ids[0] != "0" || ids[49] != "49" { // one LocalAck for all
		t.Errorf("acknowledged are %q", ids)
	}
}

// Messages for "system" stay in the agent, and neither they nor refused and local ones are acknowledged. // G-45
func TestSocketNeverAcknowledged(t *testing.T) {
	d, path := newDesk(), socketPath(t)
	startSocket(t, d, &socketpb.Config{ApiProxyPath: path}, service.Timing{})
	p, _ := connect(t, path)
	id := d.ClientID()
	d.refuse = func(m *fspb.Message) error {
		if m.Destination.GetServiceName() == "" {
			return errors.New("no destination")
		}
		return nil
	}
	for i, destination := range []*fspb.Address{
		{ServiceName: "system"}, nil, {ServiceName: "neighbour", ClientId: id.Bytes()}, {ServiceName: "backend"},
	} {
		m := &fspb.Message{Destination: destination, SourceMessageId: []byte(strconv.Itoa(i)), MessageType: "ClientInfo"}
		if err := p.send(m); err != nil {
			t.Fatal(err)
		}
	}
	if ids := receiveAck(t, p); len(ids) != 1 || ids[0] != "3" {
		t.Errorf("acknowledged are %q", ids)
	}
	if sent := d.messages(); len(sent) != 2 || sent[0].Destination.ServiceName != "neighbour" {
		t.Errorf("messages that were sent: %v", sent)
	}
}

func TestSocketMessageWithoutID(t *testing.T) {
	d, path := newDesk(), socketPath(t)
	startSocket(t, d, &socketpb.Config{ApiProxyPath: path}, service.Timing{})
	p, _ := connect(t, path)
	if err := p.text("Up", "x"); err != nil {
		t.Fatal(err)
	}
	ids := receiveAck(t, p)
	if m := d.next(t, 0); len(ids) != 1 || len(ids[0]) != 16 || string(m.SourceMessageId) != ids[0] {
		t.Errorf("acknowledged are %x, the message has %x", ids, m.SourceMessageId)
	}
}

// A process that does not read holds up nobody but itself, and loses its connection in the end. // G-61
func TestSocketStalledProcess(t *testing.T) {
	t.Parallel()
	d, path := newDesk(), socketPath(t)
	d.manual = true
	svc := startSocket(t, d, &socketpb.Config{ApiProxyPath: path}, service.Timing{Channel: 3 * time.Second})
	p, conn := connect(t, path)
	if err := conn.(*net.UnixConn).SetReadBuffer(1); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	large := padded(t, "Down", channel.MaxMessage)
	go func() { result <- svc.Process(t.Context(), large) }() // waited for below
	for i := range 100 {
		sendNumbered(t, p, strconv.Itoa(i), 50)
	}
	d.next(t, 99)
	d.acceptAll() // does not block, though nothing can be written to the process
	second, _ := connect(t, path)
	got, err := second.receive()
	if err != nil || !proto.Equal(got, large) {
		t.Fatalf("the message is not given to the next process: %v", err)
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// A process that sends and sends without reading its acknowledgements is not read from any more at some point. // G-61
func TestSocketUnreadAcknowledgements(t *testing.T) {
	d, path := newDesk(), socketPath(t)
	d.manual = true
	svc := startSocket(t, d, &socketpb.Config{ApiProxyPath: path}, service.Timing{})
	p, conn := connect(t, path)
	sending := make(chan error, 1)
	go func() { // ends when the connection does
		var err error
		for err == nil {
			err = p.send(&fspb.Message{Destination: &fspb.Address{ServiceName: "backend"}, SourceMessageId: []byte("same")})
		}
		sending <- err
	}()
	d.next(t, service.MaxUnacknowledged-1)
	<-time.After(100 * time.Millisecond) // in which there would be thousands
	if n := len(d.messages()); n != service.MaxUnacknowledged {
		t.Errorf("%d messages were taken", n)
	}
	stop(t, svc) // does not wait for anybody either
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	<-sending
}

// Everything that a process wrote before it left is taken, though it cannot be told so any more.
func TestSocketProcessThatLeaves(t *testing.T) {
	const messages = 2000
	d, path := newDesk(), socketPath(t)
	startSocket(t, d, &socketpb.Config{ApiProxyPath: path}, service.Timing{})
	p, conn := connect(t, path)
	for i := range messages {
		sendNumbered(t, p, strconv.Itoa(i), 40)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	d.next(t, messages-1)
}
