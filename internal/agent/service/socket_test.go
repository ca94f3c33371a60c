//go:build unix

package service_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/agent/service"
	"github.com/farspeak/farspeak/internal/channel"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	monitoringpb "github.com/farspeak/farspeak/proto/fleetspeak/monitoring"
	socketpb "github.com/farspeak/farspeak/proto/fleetspeak/socketservice"
)

// socketPath is a path short enough for a socket, in a directory that does not exist yet.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "deep", "private", "socket")
}

func startSocket(t *testing.T, host service.Host, config *socketpb.Config, times service.Timing) service.Service {
	t.Helper()
	svc, err := service.NewSocketWith(service.Spec{Name: "walrus", Host: host, Config: pack(t, config)}, times)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, svc) })
	return svc
}

// dial connects without saying anything.
func dial(t *testing.T, path string) (*rawPeer, net.Conn) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &rawPeer{in: conn, out: conn}, conn
}

// connect introduces itself as the connectors do.
func connect(t *testing.T, path string) (*rawPeer, net.Conn) {
	t.Helper()
	p, conn := dial(t, path)
	if err := p.introduceThen(os.Getpid(), "0.9", func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	return p, conn
}

func sendNumbered(t *testing.T, p *rawPeer, id string, size int) {
	t.Helper()
	m := padded(t, "Number", size+len(id)+2)
	m.Data.Value = m.Data.Value[:len(m.Data.Value)-len(id)-2]
	m.Source, m.SourceMessageId, m.Destination = nil, []byte(id), &fspb.Address{ServiceName: "backend"}
	if err := p.send(m); err != nil {
		t.Fatal(err)
	}
}

// receiveAck returns the IDs of the LocalAck that comes next, after checking its form.
func receiveAck(t *testing.T, p *rawPeer) []string {
	t.Helper()
	m, err := p.receive()
	if err != nil {
		t.Fatal(err)
	}
	data := &fspb.MessageAckData{}
	if m.MessageType != "LocalAck" || m.Source.GetServiceName() != "client" || m.Destination != nil || len(m.SourceMessageId) != 0 {
		t.Fatalf("got %v", m)
	}
	if err := m.Data.UnmarshalTo(data); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, id := range data.MessageIds {
		ids = append(ids, string(id))
	}
	return ids
}

func TestSocketBothWays(t *testing.T) {
	d, path := newDesk(), socketPath(t)
	svc := startSocket(t, d, &socketpb.Config{ApiProxyPath: path}, service.Timing{})
	p, _ := connect(t, path)
	for i, size := range []int{100, channel.MaxMessage - 10} {
		sendNumbered(t, p, "AAABBBCCC", size)
		m := d.next(t, i)
		if m.MessageType != "Number" || m.Destination.GetServiceName() != "backend" || string(m.SourceMessageId) != "AAABBBCCC" {
			t.Errorf("message is of type %s to %v", m.MessageType, m.Destination)
		}
		if ids := receiveAck(t, p); len(ids) != 1 || ids[0] != "AAABBBCCC" {
			t.Errorf("acknowledged are %q", ids)
		}
	}
	for _, size := range []int{100, channel.MaxMessage} {
		m := padded(t, "Down", size)
		done := make(chan error, 1)
		go func() { done <- svc.Process(t.Context(), m) }() // waited for below
		got, err := p.receive()
		if err != nil || !proto.Equal(got, m) {
			t.Errorf("%d bytes: a message of %d bytes came, %v", size, proto.Size(got), err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := svc.Process(t.Context(), padded(t, "TooLarge", channel.MaxMessage+1)); !errors.Is(err, channel.ErrTooLarge) {
		t.Errorf("a message over the limit: %v", err)
	}
	if state := svc.(service.Stater).State(); state.PID != os.Getpid() || state.Version != "0.9" || state.Starts != 1 {
		t.Errorf("state is %+v", state)
	}
}

// What the agent writes is to the byte what the protocol's description shows, and bytes may come in any pieces.
func TestSocketToTheByte(t *testing.T) {
	d, path := newDesk(), socketPath(t)
	startSocket(t, d, &socketpb.Config{ApiProxyPath: path}, service.Timing{})
	p, conn := dial(t, path)
	if err := p.expect(magic); err != nil { // before the peer has said anything
		t.Fatal(err)
	}
	m := textMessage(t, "Up", "x")
	m.Source, m.SourceMessageId = nil, []byte("AAABBBCCC")
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	stream := append(bytes.Clone(magic), binary.LittleEndian.AppendUint32(nil, uint32(len(body)))...)
	stream = append(append(stream, body...), magic...)
	for i := range stream {
		if err := p.bytes(stream[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	ack, err := hex.DecodeString("52000000" + "12081206636c69656e742a084c6f63616c41636b3a3c0a2d747970652e676f6f676c65617069732e636f6d2f" +
		"666c656574737065616b2e4d65737361676541636b44617461120b0a09414141424242434343" + "0110eef1")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.expect(ack); err != nil {
		t.Error(err)
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil { // half-close is a full close
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("%d bytes and %v after the end", n, err)
	}
}

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

// A second process is let in when the first has gone.
func TestSocketOneAtATime(t *testing.T) {
	d, path := newDesk(), socketPath(t)
	svc := startSocket(t, d, &socketpb.Config{ApiProxyPath: path}, service.Timing{})
	_, first := connect(t, path)
	second, conn := dial(t, path)
	if err := conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := second.expect(magic); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the second process is served beside the first: %v", err)
	}
	if err := errors.Join(first.Close(), conn.SetReadDeadline(time.Now().Add(patience))); err != nil {
		t.Fatal(err)
	}
	if err := second.expect(magic); err != nil {
		t.Error(err)
	}
	if state := svc.(service.Stater).State(); state.Starts != 2 || state.LastError != "" {
		t.Errorf("state is %+v", state)
	}
}

func TestSocketViolationsEndTheConnection(t *testing.T) {
	for name, stream := range map[string]string{
		"no magic":         "deadbeef",
		"magic at the end": "0110eef1" + "00000000" + "0110eef2",
		"too large":        "0110eef1" + "01002000",
		"no message":       "0110eef1" + "02000000" + "ffff" + "0110eef1",
	} {
		t.Run(name, func(t *testing.T) {
			d, path := newDesk(), socketPath(t)
			svc := startSocket(t, d, &socketpb.Config{ApiProxyPath: path}, service.Timing{})
			p, conn := dial(t, path)
			if err := p.raw(stream + "00000000"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Error(err)
			}
			state := svc.(service.Stater)
			poll(t, "error", func() bool { return strings.Contains(state.State().LastError, "protocol violation") },
				func() string { return fmt.Sprint(state.State()) })
			connect(t, path) // the next one is welcome
		})
	}
}

// A process that does not speak in time makes room for the next one.
func TestSocketDeadlines(t *testing.T) {
	d, path := newDesk(), socketPath(t)
	startSocket(t, d, &socketpb.Config{ApiProxyPath: path}, service.Timing{Channel: 100 * time.Millisecond})
	dial(t, path)
	connect(t, path)
}

// A process that does not read holds up nobody but itself, and loses its connection in the end. // G-61
func TestSocketStalledProcess(t *testing.T) {
	t.Parallel()
	d, path := newDesk(), socketPath(t)
	d.manual = true
	svc := startSocket(t, d, &socketpb.Config{ApiProxyPath: path}, service.Timing{Channel: 500 * time.Millisecond})
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
		t.Errorf("the message is not given to the next process: %v", err)
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

func TestSocketManyMessages(t *testing.T) {
	t.Parallel()
	const messages = 10000
	d, path := newDesk(), socketPath(t)
	svc := startSocket(t, d, &socketpb.Config{ApiProxyPath: path}, service.Timing{})
	p, _ := connect(t, path)
	received := make(chan error, 1)
	go func() { received <- receiveNumbered(p, messages) }() // waited for below
	sent := make(chan error, 1)
	go func() { // waited for below
		for i := range messages {
			if err := svc.Process(t.Context(), &fspb.Message{MessageType: strconv.Itoa(i)}); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for i := range messages {
		sendNumbered(t, p, fmt.Sprintf("up-%05d", i), 60)
	}
	if err := errors.Join(<-sent, <-received); err != nil {
		t.Error(err)
	}
	d.next(t, messages-1)
	for i, m := range d.messages() {
		if string(m.SourceMessageId) != fmt.Sprintf("up-%05d", i) {
			t.Fatalf("message %d is %s", i, m.SourceMessageId)
		}
	}
}

// receiveNumbered wants each message once and in order, and an acknowledgement for each that it sent.
func receiveNumbered(p *rawPeer, count int) error {
	acknowledged := make(map[string]bool)
	for next := 0; next < count || len(acknowledged) < count; {
		m, err := p.receive()
		if err != nil {
			return fmt.Errorf("after %d messages and %d acknowledgements: %w", next, len(acknowledged), err)
		}
		data := &fspb.MessageAckData{}
		switch {
		case m.MessageType != "LocalAck" && m.MessageType != strconv.Itoa(next):
			return fmt.Errorf("message %s, want %d", m.MessageType, next)
		case m.MessageType != "LocalAck":
			next++
			continue
		}
		if err := m.Data.UnmarshalTo(data); err != nil {
			return err
		}
		for _, id := range data.MessageIds {
			if acknowledged[string(id)] {
				return fmt.Errorf("%s was acknowledged twice", id)
			}
			acknowledged[string(id)] = true
		}
	}
	return nil
}

func TestSocketStopOfAnIdleService(t *testing.T) {
	d, path := newDesk(), socketPath(t)
	svc := startSocket(t, d, &socketpb.Config{ApiProxyPath: path}, service.Timing{})
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error, 1)
	go func() { waiting <- svc.Process(ctx, textMessage(t, "Down", "")) }() // waited for below
	began := time.Now()
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("a message without a process: %v", err)
	}
	stop(t, svc)
	if elapsed := time.Since(began); elapsed > time.Second {
		t.Errorf("the stop took %v", elapsed)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket did not stay: %v", err)
	}
	startSocket(t, d, &socketpb.Config{ApiProxyPath: path}, service.Timing{}) // in place of what is left
	connect(t, path)
}

// A new instance takes over the name before the old one stops.
func TestSocketReplacement(t *testing.T) {
	d, path := newDesk(), socketPath(t)
	old := startSocket(t, d, &socketpb.Config{ApiProxyPath: path}, service.Timing{})
	svc := startSocket(t, d, &socketpb.Config{ApiProxyPath: path}, service.Timing{})
	stop(t, old)
	connect(t, path)
	if n := svc.(service.Stater).State().Starts; n != 1 {
		t.Errorf("%d connections", n)
	}
}

// Reports have the start time that the server insists on. // G-26
func TestSocketResourceReports(t *testing.T) {
	t.Parallel()
	usage := func(t *testing.T, config *socketpb.Config) (*desk, *rawPeer) {
		d := newDesk()
		config.ApiProxyPath = socketPath(t)
		config.ResourceMonitoringSampleSize, config.ResourceMonitoringSamplePeriodSeconds = 2, 1
		startSocket(t, d, config, service.Timing{})
		p, _ := connect(t, config.ApiProxyPath)
		return d, p
	}
	t.Run("enabled", func(t *testing.T) {
		d, _ := usage(t, &socketpb.Config{})
		var report *monitoringpb.ResourceUsageData
		d.await(t, "report", func() bool {
			for _, report = range d.usageLocked(func(*monitoringpb.ResourceUsageData) bool { return true }) {
				return true
			}
			return false
		})
		if report.Scope != "walrus" || int(report.Pid) != os.Getpid() || report.Version != "0.9" || report.ProcessTerminated ||
			report.ResourceUsage.GetMeanResidentMemory() < 1<<20 {
			t.Errorf("report is %v", report)
		}
		if age := time.Since(report.ProcessStartTime.AsTime()); age < 0 || age > time.Hour {
			t.Errorf("the process is %v old", age)
		}
	})
	t.Run("disabled", func(t *testing.T) {
		d, p := usage(t, &socketpb.Config{DisableResourceMonitoring: true})
		sendNumbered(t, p, "after", 50)
		d.next(t, 0)
		if n := len(d.reports); n != 0 {
			t.Errorf("%d reports", n)
		}
	})
}

func TestSocketPaths(t *testing.T) {
	config := func(path string) service.Spec {
		return service.Spec{Name: "walrus", Host: newDesk(), Config: pack(t, &socketpb.Config{ApiProxyPath: path})}
	}
	path := socketPath(t)
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(filepath.Dir(dir), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(dir, strings.Repeat("x", 104-len(dir)-1))
	modes := map[string]os.FileMode{"open parent": 0o755, "sticky parent": 0o700 | os.ModeSticky, "parent without rights": 0o500}
	for name, path := range map[string]string{
		"empty": "", "relative": "socket", "too long": long, "parent is a link": filepath.Join(link, "socket"),
		"open parent": path, "sticky parent": path, "parent without rights": path,
	} {
		if mode, found := modes[name]; found {
			if err := os.Chmod(dir, mode); err != nil {
				t.Fatal(err)
			}
		}
		if svc, err := service.NewSocket(config(path)); err == nil {
			t.Errorf("%s: no error", name)
			stop(t, svc)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 0 {
			t.Errorf("%s: %q was left, %v", name, left, err)
		}
	}
	svc, err := service.NewSocket(config(long[:103])) // with its suffix all that fits
	if err != nil {
		t.Fatal(err)
	}
	stop(t, svc)
}

func TestSocketModes(t *testing.T) {
	path := socketPath(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, old := range []string{path, path + ".tmp"} {
		if err := os.WriteFile(old, []byte("left by somebody"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	startSocket(t, newDesk(), &socketpb.Config{ApiProxyPath: path}, service.Timing{})
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	if _, err := os.Lstat(path + ".tmp"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary name: %v", err)
	}
}

func TestPipeNames(t *testing.T) {
	form := regexp.MustCompile(`^\\\\\.\\pipe\\[A-Za-z0-9_-]{128}$`)
	one, other := service.NewPipeName(), service.NewPipeName()
	if !form.MatchString(one) || one == other {
		t.Errorf("names are %q and %q", one, other)
	}
}
