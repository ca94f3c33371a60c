package integration_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	daemonpb "github.com/farspeak/farspeak/proto/fleetspeak/daemonservice"
	socketpb "github.com/farspeak/farspeak/proto/fleetspeak/socketservice"
	"github.com/farspeak/farspeak/test/harness"
)

// endpoints is an installation with one client, one service of one kind on it, and what its process sends.
type endpoints struct {
	*installation
	admin  *harness.AdminClient
	client *harness.Client
	id     []byte // of client

	mu       sync.Mutex
	arrived  []*fspb.Message // in order of arrival
	received map[string]bool // message IDs of arrived
}

// startEndpoints runs a client with the service "walrus" of a kind. Its messages reach the backend one after another.
func startEndpoints(t *testing.T, kind string) *endpoints {
	t.Helper()
	e := &endpoints{received: make(map[string]bool)}
	e.installation = install(t, shape{site: func(s *harness.Site) {
		s.Components.Farspeak.Admin.MaxPendingMessagesPerClient = 2 * endpointMessages
		inOrder(s)
	}})
	e.backend.Refuse(e.note)
	config, program := endpointService(t, kind)
	e.admin = e.admins[0].Client(t)
	e.client = e.StartClient("fs-client", harness.ClientOptions{
		Servers:  []string{e.servers[0].ClientAddress},
		Services: []*fspb.ClientServiceConfig{{Name: "walrus", Factory: kind, Config: config}},
	})
	if program != nil {
		harness.Start(t, e.Dir, "endpoint", program[0], program[1:]...)
	}
	e.id = e.client.ID()
	awaitClients(t, e.admin, []*harness.Client{e.client})
	return e
}

// endpointService is the configuration of a service, and the program to run beside if the agent does not run it.
func endpointService(t *testing.T, kind string) (config *anypb.Any, program []string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if kind == "Daemon" {
		return mustPack(t, &daemonpb.Config{Argv: []string{self, endpointFlag, kind}}), nil
	}
	dir, err := os.MkdirTemp("", "fs") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "private", "socket")
	return mustPack(t, &socketpb.Config{ApiProxyPath: path}), []string{self, endpointFlag, kind, path}
}

func mustPack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	packed, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

// note sees each message that comes to the backend, and refuses none.
func (e *endpoints) note(m *fspb.Message) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if m.Source.GetServiceName() == "walrus" && !e.received[string(m.MessageId)] {
		e.received[string(m.MessageId)] = true
		e.arrived = append(e.arrived, m)
	}
	return nil
}

// ofType are the messages of a type, in order of arrival.
func (e *endpoints) ofType(kind string) []*fspb.Message {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []*fspb.Message
	for _, m := range e.arrived {
		if strings.HasPrefix(m.MessageType, kind) {
			out = append(out, m)
		}
	}
	return out
}

func (e *endpoints) await(t *testing.T, kind string, count int) []*fspb.Message {
	t.Helper()
	harness.Eventually(t, endpointPatience, fmt.Sprintf("%d messages of type %s", count, kind), func() error {
		if n := len(e.ofType(kind)); n < count {
			return fmt.Errorf("%d have come", n)
		}
		return nil
	})
	return e.ofType(kind)
}

// insert sends a message to the service and returns its ID.
func (e *endpoints) insert(t *testing.T, kind string, payload proto.Message) []byte {
	t.Helper()
	m := harness.ToClient(t, e.id, "walrus", "")
	m.MessageType, m.Data = kind, mustPack(t, payload)
	return e.admin.MustInsert(t, m)
}

func (e *endpoints) awaitResult(t *testing.T, id []byte) *fspb.MessageResult {
	t.Helper()
	var result *fspb.MessageResult
	harness.Eventually(t, promptly, "result", func() error {
		if result = e.admin.Result(t, id); result == nil {
			return errors.New("there is none")
		}
		return nil
	})
	return result
}

const (
	endpointMessages = 10_000
	// maxMessage is the largest message to a client, in bytes.
	maxMessage = 2 << 20
)

// Both kinds of service that talk to a process, through real daemons: the largest message, ten thousand small ones each
// way of which none is lost or changes places within its priority, and a restart.
func TestEndpointServices(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"Daemon", "Socket"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			e := startEndpoints(t, kind)
			e.largest(t)
			e.down(t)
			e.up(t)
			if kind == "Daemon" {
				e.restart(t)
			}
		})
	}
}

// largest sends a message of the largest size there is, and the same payload comes back.
func (e *endpoints) largest(t *testing.T) {
	t.Helper()
	m := harness.ToClient(t, e.id, "walrus", "")
	m.MessageType, m.CreationTime = "Large", timestamppb.Now()
	m.Data = &anypb.Any{TypeUrl: "type.googleapis.com/fleetspeak.EmptyMessage"}
	const around = 1000 // more than there is around the payload
	m.Data.Value = bytes.Repeat([]byte{'x'}, maxMessage-around)
	m.Data.Value = append(m.Data.Value, bytes.Repeat([]byte{'y'}, maxMessage-proto.Size(m))...)
	if size := proto.Size(m); size != maxMessage {
		t.Fatalf("the message has %d bytes", size)
	}
	id := e.admin.MustInsert(t, m)
	if answer := e.await(t, "LargeAnswer", 1)[0]; !proto.Equal(answer.Data, m.Data) {
		t.Errorf("the answer has %d bytes", len(answer.Data.GetValue()))
	}
	if result := e.awaitResult(t, id); result.Failed {
		t.Errorf("result is %v", result)
	}
}

// down sends numbered messages, which the process answers, in order. With the race detector there are fewer: inserting them
// takes longer than all the rest.
func (e *endpoints) down(t *testing.T) {
	t.Helper()
	began, count := time.Now(), endpointMessages
	if harness.RaceEnabled {
		count /= 5
	}
	var inserting sync.WaitGroup
	for lane := range endpointLanes {
		inserting.Go(func() {
			for n := lane; n < count; n += endpointLanes {
				e.insert(t, "Number", wrapperspb.Int64(int64(n)))
			}
		})
	}
	inserting.Wait()
	answers := e.await(t, "NumberAnswer", count)
	t.Logf("%d messages down, and their answers up, in %v", count, time.Since(began).Round(time.Millisecond))
	checkNumbers(t, answers, count, endpointLanes)
	for _, m := range answers {
		if m.MessageType != "NumberAnswer" {
			t.Fatal(m.MessageType)
		}
	}
}

// up has the process send numbered messages of three priorities.
func (e *endpoints) up(t *testing.T) {
	t.Helper()
	began := time.Now()
	e.insert(t, "Burst", wrapperspb.Int64(endpointMessages))
	messages := e.await(t, "Burst", endpointMessages)
	t.Logf("%d messages up in %v", endpointMessages, time.Since(began).Round(time.Millisecond))
	checkNumbers(t, messages, endpointMessages, 3)
}

// checkNumbers wants every number once, and those of a lane, which are the same modulo lanes, in order.
func checkNumbers(t *testing.T, messages []*fspb.Message, count int, lanes int64) {
	t.Helper()
	if len(messages) != count {
		t.Errorf("%d messages came, want %d", len(messages), count)
	}
	next := map[int64]int64{}
	for _, m := range messages {
		lane := numberOf(m) % lanes
		if want := lane + next[lane]*lanes; numberOf(m) != want {
			t.Fatalf("number %d came in place of %d", numberOf(m), want)
		}
		next[lane]++
	}
}

func numberOf(m *fspb.Message) int64 {
	number := &wrapperspb.Int64Value{}
	if err := m.Data.UnmarshalTo(number); err != nil {
		return -1
	}
	return number.Value
}

// restart replaces the process of a service on request of the server.
func (e *endpoints) restart(t *testing.T) {
	t.Helper()
	pid := func(n int) string {
		e.insert(t, "Ping", wrapperspb.String(""))
		return e.await(t, "PingAnswer", n)[n-1].Annotations.Entries[0].Value
	}
	before := pid(1)
	m := harness.ToClient(t, e.id, "system", "")
	m.MessageType, m.Data = "RestartService", mustPack(t, &fspb.RestartServiceRequest{Name: "walrus"})
	if result := e.awaitResult(t, e.admin.MustInsert(t, m)); result.Failed {
		t.Errorf("result is %v", result)
	}
	if after := pid(2); after == before {
		t.Errorf("process %s answers before and after the restart", after)
	}
}
