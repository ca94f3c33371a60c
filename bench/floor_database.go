package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/anypb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
)

const (
	// floorRow is the table of a floor: what a message to a client needs at least.
	floorRow = `CREATE TABLE IF NOT EXISTS floor (
  client_id BINARY(8) NOT NULL, seq BIGINT NOT NULL, message_id BINARY(32) NOT NULL, due_us BIGINT NOT NULL, data MEDIUMBLOB NOT NULL,
  PRIMARY KEY (client_id, seq), KEY by_due (due_us, client_id)) ENGINE=InnoDB`
	floorInsert = `INSERT INTO floor (client_id, seq, message_id, due_us, data) VALUES `
	floorValues = `(UNHEX(LPAD(HEX(?), 16, '0')), ?, UNHEX(SHA2(?, 256)), ?, REPEAT('x', 200))`
	// floorBatch is how many rows a batch has.
	floorBatch = 100
)

// databaseFloors are rates of durable inserts a second, alone and in batches, and how many ms one commit takes with nobody
// else there: the median, and what one of a hundred exceeds.
type databaseFloors struct {
	single, batched, commitMS, commitP99 float64
}

func (b *bench) databaseFloors(ctx context.Context) (f databaseFloors, err error) {
	pool, err := sql.Open("mysql", b.site.dsn+"?interpolateParams=true")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	pool.SetMaxIdleConns(floorCalls)
	if _, err := pool.ExecContext(ctx, floorRow); err != nil {
		return f, err
	}
	var next atomic.Int64
	insert := func(rows int) error {
		var args []any
		for range rows {
			n := next.Add(1)
			args = append(args, n%500, n, n, n)
		}
		_, err := pool.ExecContext(ctx, floorInsert+strings.TrimSuffix(strings.Repeat(floorValues+", ", rows), ", "), args...)
		return err
	}
	var failed atomic.Pointer[error]
	note := func(err error) error {
		if err != nil {
			failed.Store(&err)
		}
		return err
	}
	f.single = during(floorCalls, func(int) error { return note(insert(1)) })
	f.batched = floorBatch * during(4, func(int) error { return note(insert(floorBatch)) })
	var commits []time.Duration
	during(1, func(int) error {
		began := time.Now()
		err := note(insert(1))
		commits = append(commits, time.Since(began))
		time.Sleep(2 * time.Millisecond) // an idle database, as between the messages of an open loop
		return err
	})
	if e := failed.Load(); e != nil {
		return f, fmt.Errorf("insert: %w", *e)
	}
	slices.Sort(commits)
	f.commitMS, f.commitP99 = commits[len(commits)/2].Seconds()*1000, commits[len(commits)*99/100].Seconds()*1000
	_, err = pool.ExecContext(ctx, "DROP TABLE floor")
	return f, err
}

// callRate is how many unary gRPC calls two processes of this machine make in a second, and how long one takes when it is
// alone.
func (b *bench) callRate(ctx context.Context) (perSecond, aloneMS float64, err error) {
	f, err := b.startFloor(ctx, floorGRPC)
	if err != nil {
		return 0, 0, err
	}
	defer f.kill()
	var clients []grpcservicepb.ProcessorClient
	for range adminConnections {
		conn, err := grpc.NewClient(f.address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
		if err != nil {
			return 0, 0, err
		}
		defer conn.Close()
		clients = append(clients, grpcservicepb.NewProcessorClient(conn))
	}
	message := &fspb.Message{
		MessageId: make([]byte, 32), MessageType: "Load", Data: &anypb.Any{TypeUrl: "type.googleapis.com/floor", Value: make([]byte, 200)},
		Source: &fspb.Address{ServiceName: "floor"}, Destination: &fspb.Address{ServiceName: "floor", ClientId: make([]byte, 8)},
	}
	perSecond = during(floorCalls, func(i int) error {
		_, err := clients[i%len(clients)].Process(ctx, message)
		return err
	})
	var alone []time.Duration
	during(1, func(int) error {
		began := time.Now()
		_, err := clients[0].Process(ctx, message)
		alone = append(alone, time.Since(began))
		return err
	})
	slices.Sort(alone)
	return perSecond, alone[len(alone)/2].Seconds() * 1000, nil
}
