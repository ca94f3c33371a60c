package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
	stdinpb "github.com/farspeak/farspeak/proto/fleetspeak/stdinservice"
	"github.com/farspeak/farspeak/sdk/backend"
)

const (
	// source is the name under which this backend submits.
	source = "inventory"
	// submitParallelism is how many messages are submitted at once; fs-admin commits those together.
	submitParallelism = 32
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
func submit(ctx context.Context, submitter *backend.Submitter, l *ledger) error {
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
			return submitter.Submit(ctx, m)
		})
	}
	return group.Wait()
}

// message is what asks the question. Its ID was fixed with the request: however often it is submitted, it is one message.
func (r *request) message() (*fspb.Message, error) {
	m, err := backend.NewMessage(r.client, r.fact.service, "StdinServiceInputMessage", &stdinpb.InputMessage{Args: r.args})
	if err != nil {
		return nil, err
	}
	m.MessageId = r.id
	return m, nil
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
