package cli

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/farspeak/farspeak/internal/load"
)

func (a *app) loadHoldCommand(l *loadFlags) *cobra.Command {
	var h load.HoldConfig
	cmd := &cobra.Command{
		Use:     "hold",
		Short:   "Connect clients and leave them alone",
		Long:    `Connect clients and leave them alone: what does a session cost?`,
		Example: `  fsctl load hold --client_config linux.client.configuration --clients 15000 --for 2m --server_pid $(pidof fs-server)`,
		Args:    cobra.NoArgs,
		RunE: a.scenario(l, func(ctx context.Context, c load.Config) (*load.Result, error) {
			h.Config = c
			return load.Hold(ctx, h)
		}),
	}
	cmd.Flags().DurationVar(&h.For, "for", time.Minute, "how long the clients are left alone")
	return cmd
}

func (a *app) loadUpCommand(l *loadFlags) *cobra.Command {
	var u load.UpConfig
	var backend string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Have clients send messages to a server-side service",
		Long: `Have clients send messages to a server-side service, as fast as acknowledgements allow or at a rate. With --backend this
program is the backend of that service, which the services file has to name, and proves that nothing was lost.`,
		Example: `  fsctl load up --client_config linux.client.configuration --clients 500 --service greeter --batch 10 --for 30s
  fsctl load up --client_config linux.client.configuration --clients 500 --service GRR --backend localhost:6063 --rate 5000`,
		Args: cobra.NoArgs,
		RunE: a.scenario(l, func(ctx context.Context, c load.Config) (*load.Result, error) {
			u.Config = c
			if backend != "" {
				b, err := load.StartBackend(ctx, backend)
				if err != nil {
					return nil, err
				}
				defer b.Close()
				u.Backend = b
			}
			return load.Up(ctx, u)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&u.Sending.Service, "service", "", "service on the server side (required)")
	f.IntVar(&u.Sending.Size, "size", 200, "bytes of each payload")
	f.IntVar(&u.Sending.Batch, "batch", 10, "messages in one record at most")
	f.Float64Var(&u.Sending.Rate, "rate", 0, "messages a second of all clients together (default as many as can be)")
	f.DurationVar(&u.For, "for", 20*time.Second, "how long they send")
	f.StringVar(&backend, "backend", "", "host:port at which to take the messages as a gRPC backend")
	required(cmd, "service")
	return cmd
}

func (a *app) loadDownCommand(l *loadFlags) *cobra.Command {
	var d load.DownConfig
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Submit messages for clients",
		Long: `Submit messages for clients through fs-admin, one call a message, and follow each to the client and its acknowledgement
back: with callers that wait for one answer before the next call, or at a rate.`,
		Example: `  fsctl load down --client_config linux.client.configuration --admin localhost:6061 --clients 500 --submitters 64
  fsctl load down --client_config linux.client.configuration --admin localhost:6061 --clients 500 --rate 200`,
		Args: cobra.NoArgs,
		RunE: a.scenario(l, func(ctx context.Context, c load.Config) (*load.Result, error) {
			d.Config = c
			return load.Down(ctx, d)
		}),
	}
	f := cmd.Flags()
	f.IntVar(&d.Size, "size", 200, "bytes of each payload")
	f.IntVar(&d.Submitters, "submitters", 64, "callers at once")
	f.Float64Var(&d.Rate, "rate", 0, "messages a second, in place of callers that wait")
	f.DurationVar(&d.For, "for", 20*time.Second, "how long messages are submitted")
	f.Uint64Var(&d.Messages, "messages", 0, "how many at most (default no limit)")
	return cmd
}

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
