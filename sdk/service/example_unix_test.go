//go:build unix

package service_test

import (
	"context"
	"fmt"
	"log"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	"github.com/farspeak/farspeak/sdk/service"
)

// A service that an agent starts, whose service file has the factory "Daemon".
func ExampleOpenDaemon() {
	ctx := context.Background()
	agent := pretendAgent("ping") // so that this example runs by itself
	daemon, err := service.OpenDaemon(ctx, service.DaemonConfig{
		Version:   "1.0",
		Heartbeat: time.Minute,
		In:        agent.toService, // a real service leaves these out
		Out:       agent.fromService,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer daemon.Close()

	err = service.Serve(ctx, daemon, func(_ context.Context, m *fspb.Message) (*fspb.Message, error) {
		text := &wrapperspb.StringValue{}
		if err := m.GetData().UnmarshalTo(text); err != nil {
			return nil, nil // a backend that we do not understand gets no answer
		}
		return service.Reply(m, "Shout", wrapperspb.String(strings.ToUpper(text.Value)))
	})
	fmt.Println("the agent has ended the service:", err)
	agent.printAnswer()
	// Output:
	// the agent has ended the service: <nil>
	// to service "example": Shout "PING"
}

// A program that somebody else starts, with a service file that has the factory "Socket".
func ExampleOpenSocket() {
	ctx := context.Background()
	path, acknowledge := pretendSocketAgent() // so that this example runs by itself
	socket, err := service.OpenSocket(service.SocketConfig{
		Path:    path, // the api_proxy_path of the service file
		Version: "1.0",
		Failed:  func(err error) { log.Print(err) },
	})
	if err != nil {
		log.Fatal(err)
	}
	event, err := service.NewMessage("events", "Event", wrapperspb.String("disk is full"))
	if err != nil {
		log.Fatal(err)
	}
	if err := socket.Send(ctx, event); err != nil {
		log.Fatal(err)
	}
	acknowledge()
	fmt.Println("the server has all:", socket.Flush(ctx))
	fmt.Println("closed:", socket.Close())
	// Output:
	// to service "events": Event "disk is full"
	// the server has all: <nil>
	// closed: <nil>
}

// A service is tested without an agent: its handler is a function.
func ExampleServe() {
	m, err := service.NewMessage("adder", "Add", wrapperspb.Int64(41))
	if err != nil {
		log.Fatal(err)
	}
	m.Source = &fspb.Address{ServiceName: "example"}
	conn := script{m} // its Receive delivers m and then io.EOF, its Send prints

	err = service.Serve(context.Background(), &conn, func(_ context.Context, m *fspb.Message) (*fspb.Message, error) {
		n := &wrapperspb.Int64Value{}
		if err := m.GetData().UnmarshalTo(n); err != nil {
			return nil, err
		}
		return service.Reply(m, "Sum", wrapperspb.Int64(n.Value+1))
	})
	fmt.Println(err)
	// Output:
	// to service "example": Sum 42
	// <nil>
}
