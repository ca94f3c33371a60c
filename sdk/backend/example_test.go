package backend_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"google.golang.org/protobuf/types/known/wrapperspb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	"github.com/farspeak/farspeak/sdk/backend"
)

// A message is submitted until fs-admin has stored it, once.
func ExampleSubmitter_Submit() {
	address, stop := pretendAdmin() // so that this example runs by itself: it refuses the first two tries
	defer stop()

	submitter, err := backend.NewSubmitter(backend.SubmitterConfig{
		Address: address,
		Source:  "greeter", // answers come to the service of this name
	})
	if err != nil {
		log.Fatal(err)
	}
	defer submitter.Close()

	m, err := backend.NewMessage([]byte("clientAA"), "hostfacts", "Ask", wrapperspb.String("uptime"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(submitter.Submit(context.Background(), m))
	fmt.Println(submitter.Submit(context.Background(), m)) // the same message, which is stored already
	// Output:
	// fs-admin: starting
	// fs-admin: starting
	// fs-admin: stored
	// <nil>
	// fs-admin: stored already
	// <nil>
}

// Messages come from fs-server, whose services file names the address.
func ExampleProcessor_Serve() {
	processor, err := backend.NewProcessor(backend.ProcessorConfig{
		Services: map[string]backend.Handler{
			"greeter": func(_ context.Context, m *fspb.Message) error {
				text := &wrapperspb.StringValue{}
				if err := m.GetData().UnmarshalTo(text); err != nil {
					return backend.Permanent(err) // it will never be good
				}
				fmt.Printf("client %s: %s\n", m.GetSource().GetClientId(), text.Value)
				return nil
			},
		},
		Parallelism: 10,
	})
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	pretendServer(listener.Addr().String(), cancel) // so that this example runs by itself: it delivers and ends it
	fmt.Println(processor.Serve(ctx, listener))
	// Output:
	// client clientAA: up for 3 days
	// fs-server: OK
	// fs-server: InvalidArgument
	// <nil>
}
