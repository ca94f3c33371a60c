package cli

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
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
	f := cmd.Flags()
	f.DurationVar(&h.For, "for", time.Minute, "how long the clients are left alone")
	f.DurationVar(&h.Before, "before", 0, "watch the installation without clients for this time first")
	f.BoolVar(&h.Reconnect, "reconnect", false, "before that, drop all sessions and connect again")
	f.DurationVar(&h.Work, "work", 0, "before that, have all clients send messages to --service for this time")
	f.StringVar(&h.Sending.Service, "service", "", "service on the server side, for --work")
	h.Sending.Size, h.Sending.Batch = 200, 1
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
	f.IntVar(&u.Sending.Group, "group", 1, "messages that become due in a client at once, with --rate")
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

func (a *app) loadBroadcastCommand(l *loadFlags) *cobra.Command {
	var b load.BroadcastConfig
	cmd := &cobra.Command{
		Use:     "broadcast",
		Short:   "Send one message to all connected clients",
		Long:    `Create a broadcast for clients with the label --client_label: how long until all of them have it?`,
		Example: `  fsctl load broadcast --client_config linux.client.configuration --admin localhost:6061 --clients 15000`,
		Args:    cobra.NoArgs,
		RunE: a.scenario(l, func(ctx context.Context, c load.Config) (*load.Result, error) {
			b.Config = c
			return load.Broadcast(ctx, b)
		}),
	}
	cmd.Flags().IntVar(&b.Size, "size", 200, "bytes of the payload")
	cmd.Flags().DurationVar(&b.For, "for", 5*time.Minute, "how long to wait until all have it")
	return cmd
}

func (a *app) loadStormCommand(l *loadFlags) *cobra.Command {
	var s load.StormConfig
	var restart restartFlags
	cmd := &cobra.Command{
		Use:   "storm",
		Short: "Take the server away from connected clients and give it back",
		Long: `Take the server away from connected clients and give it back: how long until all are connected again? With --kill_pid a
process is killed; something has to start it again, if not --restart_command. With --rate messages are submitted
meanwhile, to see that none is lost.`,
		Example: `  fsctl load storm --client_config linux.client.configuration --clients 15000 --restart_command "systemctl kill -s KILL fs-server"`,
		Args:    cobra.NoArgs,
		RunE: a.scenario(l, func(ctx context.Context, c load.Config) (*load.Result, error) {
			if restart.pid == 0 && restart.command == "" {
				return nil, usagef("want --kill_pid or --restart_command")
			}
			s.Config, s.Restart = c, restart.run
			return load.Storm(ctx, s)
		}),
	}
	f := cmd.Flags()
	f.IntVar(&restart.pid, "kill_pid", 0, "process to kill as kill -9 does")
	f.StringVar(&restart.command, "restart_command", "", "command for the shell that starts the server again, after killing it if --kill_pid did not")
	f.StringVar(&restart.pidFile, "pid_file", "", "file that has the new server's process ID then")
	f.Float64Var(&s.Rate, "rate", 0, "messages a second that are submitted meanwhile")
	f.IntVar(&s.Size, "size", 200, "bytes of each payload")
	f.DurationVar(&s.For, "for", 5*time.Minute, "how long to wait until all are back")
	return cmd
}

func (a *app) loadMixCommand(l *loadFlags) *cobra.Command {
	var m load.MixConfig
	var backend string
	cmd := &cobra.Command{
		Use:   "mix",
		Short: "Play the day of a fleet, faster",
		Long: `Play the day of a fleet, faster: most clients are idle, some come and go, each reports now and then, backends give tasks and
start hunts, and clients answer them. In the end all come back, and everything has to have arrived.`,
		Example: `  fsctl load mix --client_config linux.client.configuration --admin localhost:6061 --clients 10000 --service greeter --day 3m`,
		Args:    cobra.NoArgs,
		RunE: a.scenario(l, func(ctx context.Context, c load.Config) (*load.Result, error) {
			m.Config = c
			if backend != "" {
				b, err := load.StartBackend(ctx, backend)
				if err != nil {
					return nil, err
				}
				defer b.Close()
				m.Backend = b
			}
			return load.Mix(ctx, m)
		}),
	}
	f := cmd.Flags()
	f.DurationVar(&m.Day, "day", 2*time.Minute, "how long the day takes")
	f.Uint64Var(&m.Seed, "seed", 1, "number that draws the same day again")
	f.StringVar(&m.Service, "service", "", "service on the server side (required)")
	f.StringVar(&backend, "backend", "", "host:port at which to take the messages as a gRPC backend")
	f.IntVar(&m.Size, "size", 200, "bytes of each payload")
	f.Float64Var(&m.Reports, "reports", 24, "messages of each client, a day")
	f.Float64Var(&m.Tasks, "tasks", 2, "messages to each client, a day")
	f.IntVar(&m.Hunts, "hunts", 4, "messages to all clients, a day")
	f.IntVar(&m.Replies, "replies", 3, "answers of a client to each task and hunt")
	f.Float64Var(&m.Away, "away", 0.2, "part of the time that a client is not connected")
	f.Float64Var(&m.Trips, "trips", 2, "how often a client goes away, a day")
	required(cmd, "service")
	return cmd
}

// restartFlags say how "storm" restarts the server.
type restartFlags struct {
	pid              int
	command, pidFile string
}

func (r *restartFlags) run(ctx context.Context) (pid int, err error) {
	if r.pid != 0 {
		process, err := os.FindProcess(r.pid)
		if err == nil {
			err = process.Kill()
		}
		if err != nil {
			return 0, fmt.Errorf("--kill_pid %d: %w", r.pid, err)
		}
	}
	if r.command != "" {
		command := exec.CommandContext(ctx, "sh", "-c", r.command)
		command.Stderr = os.Stderr
		if err := command.Run(); err != nil {
			return 0, fmt.Errorf("--restart_command: %w", err)
		}
	}
	if r.pidFile == "" {
		return 0, nil
	}
	text, err := os.ReadFile(r.pidFile)
	if err != nil {
		return 0, fmt.Errorf("--pid_file: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
