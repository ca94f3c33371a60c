package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

const (
	// readyTimeout is how long a part may take to be ready, on a slow machine.
	readyTimeout = 60 * time.Second
	// readyInterval is the time between two looks.
	readyInterval = 20 * time.Millisecond
)

// ready returns a wait for the answer 200 of /readyz.
func (s *site) ready(name, address string) func(context.Context) error {
	return func(ctx context.Context) error {
		return s.await(ctx, name+" to be ready", func(ctx context.Context) error {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
			if err != nil {
				return err
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
			why, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
			return errors.Join(fmt.Errorf("%s: %s", response.Status, why), err)
		})
	}
}

// clientsConnected waits until fs-admin knows of a session of each client.
func (s *site) clientsConnected(ctx context.Context) error {
	conn, err := grpc.NewClient(s.admin, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	admin := serverpb.NewAdminClient(conn)
	return s.await(ctx, "the clients to connect", func(ctx context.Context) error {
		answer, err := admin.ListClients(ctx, &serverpb.ListClientsRequest{})
		if err != nil {
			return err
		}
		connected := 0
		for _, c := range answer.GetClients() {
			if c.GetLastContactStreamingTo() != "" {
				connected++
			}
		}
		if connected < clientCount {
			return fmt.Errorf("%d of %d are connected", connected, clientCount)
		}
		return nil
	})
}

// await looks until there is no error, a process ends, or the time is over.
func (s *site) await(ctx context.Context, what string, look func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	ticker := time.NewTicker(readyInterval)
	defer ticker.Stop()
	for {
		err := look(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case p := <-s.ended:
			return fmt.Errorf("%s ended while the demo waited for %s: %w", p.name, what, p.result())
		case <-ctx.Done():
			return fmt.Errorf("waited for %s: %w, last: %w", what, ctx.Err(), err)
		}
	}
}
