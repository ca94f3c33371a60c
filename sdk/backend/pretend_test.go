package backend_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// pretendAdmin serves an fs-admin that is starting when it is first asked.
func pretendAdmin() (address string, stop func()) {
	stored := map[string]bool{}
	a := &admin{insert: func(_ context.Context, m *fspb.Message, try int) error {
		switch {
		case try <= 2:
			fmt.Println("fs-admin: starting")
			return status.Error(codes.Unavailable, "starting")
		case stored[string(m.MessageId)]:
			fmt.Println("fs-admin: stored already")
		default:
			fmt.Println("fs-admin: stored")
		}
		stored[string(m.MessageId)] = true
		return nil
	}}
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		log.Panic(err)
	}
	server := grpc.NewServer()
	serverpb.RegisterAdminServer(server, a)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	return listener.Addr().String(), func() {
		server.Stop()
		serving.Wait()
	}
}

// pretendServer delivers a good message and one that is none, and calls done.
func pretendServer(address string, done func()) {
	go func() { // ends before Serve does: that waits for done
		defer done()
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			log.Panic(err)
		}
		defer conn.Close()
		for _, payload := range []proto.Message{wrapperspb.String("up for 3 days"), wrapperspb.Bool(true)} {
			data, err := anypb.New(payload)
			if err != nil {
				log.Panic(err)
			}
			m := fromClient("greeter")
			m.Data = data
			_, err = grpcservicepb.NewProcessorClient(conn).Process(context.Background(), m)
			fmt.Println("fs-server:", status.Code(err))
		}
	}()
}
