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
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/agent/service"
	"github.com/farspeak/farspeak/internal/channel"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	socketpb "github.com/farspeak/farspeak/proto/fleetspeak/socketservice"
)

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
