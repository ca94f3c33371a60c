//go:build unix

package service_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/agent/service"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
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
