package integration_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	"github.com/farspeak/farspeak/sdk/service"
)

// endpointFlag in front of a kind of service makes the test program a service on a client's machine.
const endpointFlag = "farspeak-test-endpoint"

// runEndpoint is the life of a service process, of the kind "Daemon" or "Socket".
func runEndpoint(args []string) int {
	conn, err := openEndpoint(args)
	if err == nil {
		e := &endpoint{conn: conn, next: make(map[int64]int64)}
		err = e.serve(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "endpoint:", err)
		return 1
	}
	return 0
}

func openEndpoint(args []string) (service.Conn, error) {
	if args[0] == "Daemon" {
		return service.OpenDaemon(context.Background(), service.DaemonConfig{Version: "1"})
	}
	return service.OpenSocket(service.SocketConfig{Path: args[1], Version: "1", Window: 900, MaxKept: 2 * endpointMessages})
}

// endpoint does what messages say by their type.
type endpoint struct {
	conn service.Conn
	next map[int64]int64 // by lane: the number that the next "Number" has to have within it
}

func (e *endpoint) serve(ctx context.Context) error {
	for {
		m, err := e.conn.Receive(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch m.MessageType {
		case "Number":
			err = e.count(ctx, m)
		case "Burst":
			go e.burst(ctx, m) // ends with the process
		default:
			err = e.answer(ctx, m, m.MessageType+"Answer")
		}
		if err != nil {
			return err
		}
	}
}

// count answers a number, and says so when it is not the one that has to come in its lane.
func (e *endpoint) count(ctx context.Context, m *fspb.Message) error {
	number := &wrapperspb.Int64Value{}
	if err := m.Data.UnmarshalTo(number); err != nil {
		return err
	}
	kind, lane := "NumberAnswer", number.Value%endpointLanes
	if number.Value/endpointLanes != e.next[lane] {
		kind = fmt.Sprintf("NumberAnswer, %d was expected", e.next[lane]*endpointLanes+lane)
	}
	e.next[lane]++
	return e.answer(ctx, m, kind)
}

// answer sends a message's payload back, with the process's number.
func (e *endpoint) answer(ctx context.Context, m *fspb.Message, kind string) error {
	return e.conn.Send(ctx, &fspb.Message{
		Destination: &fspb.Address{ServiceName: m.Source.ServiceName},
		MessageType: kind,
		Data:        m.Data,
		Annotations: &fspb.Annotations{Entries: []*fspb.Annotations_Entry{{Key: "pid", Value: strconv.Itoa(os.Getpid())}}},
	})
}

// burst sends numbered messages of all priorities as fast as the agent takes them.
func (e *endpoint) burst(ctx context.Context, m *fspb.Message) {
	number := &wrapperspb.Int64Value{}
	err := m.Data.UnmarshalTo(number)
	for i := int64(0); i < number.Value && err == nil; i++ {
		var up *fspb.Message
		if up, err = service.NewMessage(m.Source.ServiceName, "Burst", wrapperspb.Int64(i)); err == nil {
			up.Priority = fspb.Message_Priority(i % 3)
			err = e.conn.Send(ctx, up)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "burst:", err)
		os.Exit(1)
	}
}

// endpointLanes is how many callers insert messages side by side. Each has an order of its own.
const endpointLanes = 16

// endpointPatience is how long ten thousand messages may take, with the race detector on a loaded machine.
const endpointPatience = 120 * time.Second
