package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
	stdinpb "github.com/farspeak/farspeak/proto/fleetspeak/stdinservice"
)

const (
	// source is the name under which this backend submits.
	source = "inventory"
	// submitParallelism is how many messages are submitted at once; fs-admin commits those together.
	submitParallelism = 32
	// tryTimeout bounds one try to submit, submitTimeout all of them.
	tryTimeout    = 5 * time.Second
	submitTimeout = 30 * time.Second
	// failureInterval is the time between two looks for requests that failed.
	failureInterval = time.Second
)

// chooseClients returns the clients that were named, or all that are not blacklisted.
func chooseClients(ctx context.Context, admin serverpb.AdminClient, named []string) ([][]byte, error) {
	var ids [][]byte
	for _, text := range named {
		id, err := hex.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("client ID %q: %w", text, err)
		}
		ids = append(ids, id)
	}
	if len(named) > 0 {
		return ids, nil
	}
	stream, err := admin.StreamClientIds(ctx, &serverpb.StreamClientIdsRequest{})
	if err != nil {
		return nil, fmt.Errorf("list clients: %w", err)
	}
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && len(ids) == 0:
			return nil, errors.New("there are no clients: start an fs-client first")
		case errors.Is(err, io.EOF):
			return ids, nil
		case err != nil:
			return nil, fmt.Errorf("list clients: %w", err)
		}
		ids = append(ids, m.GetClientId())
	}
}

// submit gives all requests to fs-admin. When it returns nil each is stored.
func submit(ctx context.Context, admin serverpb.AdminClient, l *ledger) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(submitParallelism)
	for _, r := range l.requests {
		group.Go(func() error {
			m, err := r.message()
			if err != nil {
				return err
			}
			l.mu.Lock()
			r.submitted = time.Now()
			l.mu.Unlock()
			return insert(ctx, admin, m)
		})
	}
	return group.Wait()
}

func (r *request) message() (*fspb.Message, error) {
	data, err := anypb.New(&stdinpb.InputMessage{Args: r.args})
	if err != nil {
		return nil, err
	}
	return &fspb.Message{
		MessageId:   r.id,
		Source:      &fspb.Address{ServiceName: source},
		Destination: &fspb.Address{ClientId: r.client, ServiceName: r.fact.service},
		MessageType: "StdinServiceInputMessage",
		Data:        data,
	}, nil
}

// insert submits one message until fs-admin has it. A try whose answer got lost may have succeeded, which does no harm:
// the same ID is the same message.
func insert(ctx context.Context, admin serverpb.AdminClient, m *fspb.Message) error {
	try := func() (struct{}, error) {
		tryCtx, cancel := context.WithTimeout(ctx, tryTimeout)
		defer cancel()
		_, err := admin.InsertMessage(tryCtx, m)
		switch status.Code(err) {
		case codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.Unimplemented:
			err = backoff.Permanent(err) // trying again would change nothing
		}
		return struct{}{}, err
	}
	if _, err := backoff.Retry(ctx, try, backoff.WithMaxElapsedTime(submitTimeout)); err != nil {
		return fmt.Errorf("submit to client %x: %w", m.GetDestination().GetClientId(), err)
	}
	return nil
}

// watchFailures waits until each request is answered or failed, or ctx ends. A command that ends with an error makes no
// answer; its message is marked as failed, which only a look at it shows.
func watchFailures(ctx context.Context, admin serverpb.AdminClient, l *ledger) {
	ticker := time.NewTicker(failureInterval)
	defer ticker.Stop()
	for {
		select {
		case <-l.empty:
			return
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, r := range l.open() {
			answer, err := admin.GetMessageStatus(ctx, &serverpb.GetMessageStatusRequest{MessageId: r.id})
			if err == nil && answer.GetResult().GetFailed() {
				l.fail(r, answer.GetResult().GetFailedReason())
			}
		}
	}
}
