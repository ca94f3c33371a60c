package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/prototext"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/render"
	"github.com/farspeak/farspeak/internal/load"
	"github.com/farspeak/farspeak/internal/load/fleet"
	"github.com/farspeak/farspeak/internal/load/measure"
	genericpb "github.com/farspeak/farspeak/proto/fleetspeak/client/generic"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

const loadText = `Put a simulated fleet to work on an installation and measure what it does. Clients are simulated over real sessions with
mutual TLS, each with a key of its own; the keys are kept in a file, so that the same clients come again.

The installation may be Farspeak's or the original's. Do not use one that matters: the clients are registered, and stay.

While it runs, standard error shows on a terminal how it goes; Ctrl-C ends it and prints what was measured until then.
With --server_pid and the like the result tells what these processes used, with --database_dsn how many statements the
database took, with --plot a chart is drawn.`

func (a *app) loadCommand() *cobra.Command {
	var flags loadFlags
	group := a.newAPIGroup("load", "Measure an installation with a simulated fleet",
		a.loadHoldCommand(&flags), a.loadUpCommand(&flags), a.loadDownCommand(&flags), a.loadBroadcastCommand(&flags),
		a.loadStormCommand(&flags), a.loadMixCommand(&flags), a.loadWorkerCommand())
	group.Long = loadText
	flags.register(group)
	return group
}

// loadWorkerCommand is what child processes run.
func (a *app) loadWorkerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    loadWorker,
		Short:  "Run a part of the fleet by commands on standard input",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: a.action(func(ctx context.Context, _ []string) error {
			return fleet.Serve(ctx, a.In, a.Out)
		}),
	}
}

const loadWorker = "worker"

// loadFlags are those of all scenarios.
type loadFlags struct {
	config       load.Config
	clientConfig string
	trusted      string
	original     bool
	pids         map[string]int
	dsn          string
	connections  int
	plot         string
}

func (l *loadFlags) register(cmd *cobra.Command) {
	f, job := cmd.PersistentFlags(), &l.config.Job
	f.StringSliceVar(&job.Servers, "server", nil, "host:port of fs-server or its balancer; again for more")
	f.StringVar(&l.trusted, "trusted_certs", "", "PEM file with the authorities of the servers' certificates")
	f.StringVar(&l.clientConfig, "client_config", "", "take servers and authorities from this configuration of fs-client")
	f.BoolVar(&job.Insecure, "insecure", false, "take any certificate of a server")
	f.StringVar(&job.ServerName, "client_server_name", "", "name in the servers' certificate, when it is not the host")
	f.IntVar(&l.config.Clients, "clients", 1000, "how many clients to simulate")
	f.IntVar(&l.config.Processes, "processes", 0, "spread them over this many processes (default as many as are needed)")
	f.StringVar(&job.KeyFile, "keys", defaultKeyFile(), "file that keeps the clients' keys")
	f.StringSliceVar(&job.Sources, "source", nil, "local address to connect from; again for more (default chosen when needed)")
	f.StringSliceVar(&job.Labels, "client_label", []string{"load"}, "label that the clients claim; again for more")
	f.StringVar(&job.Service, "client_service", fleet.DefaultService, "service on the clients")
	f.Float64Var(&job.ConnectRate, "connect_rate", 0, "new connections a second (default as many as can be)")
	f.IntVar(&job.Dials, "dials", fleet.DefaultDials, "connections that are opened at once, in each process")
	f.IntVar(&job.Window, "window", fleet.DefaultWindow, "records of a client that may wait for their acknowledgement")
	f.DurationVar(&job.AckDelay, "ack_delay", 0, "how long a client gathers acknowledgements, beyond the record under way")
	f.BoolVar(&job.Resume, "resume", false, "resume TLS sessions, as fs-client does within one run")
	f.BoolVar(&job.Classic, "classic", false, "agree TLS keys without ML-KEM, as the original's agents do")
	f.BoolVar(&l.original, "original", false, "behave as the original's agents: --ack_delay=1s, --classic, no resumption")
	f.DurationVar(&l.config.ConnectTimeout, "connect_timeout", load.DefaultConnectTimeout, "how long connecting all clients may take")
	f.DurationVar(&l.config.Settle, "settle", load.DefaultSettle, "pause between connecting and measuring")
	f.DurationVar(&l.config.Drain, "drain", load.DefaultDrain, "how long to wait at the end for what is under way")
	f.StringToIntVar(&l.pids, "pid", nil, "watch a process: NAME=PID, e.g. fs-server=4711; again for more")
	f.Int("server_pid", 0, "process of fs-server to watch, on this machine")
	f.Int("admin_pid", 0, "process of fs-admin to watch, on this machine")
	f.StringVar(&l.dsn, "database_dsn", "", "MySQL data source name, to count statements")
	f.IntVar(&l.connections, "admin_connections", 4, "connections to each fs-admin; --admin may name several with commas between")
	f.StringVar(&l.plot, "plot", "", "draw a chart of the run into this SVG file")
}

// defaultKeyFile is in the user's cache folder.
func defaultKeyFile() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "farspeak", "load.keys")
}

// scenario wraps one: it prepares what all need, and prints the result.
func (a *app) scenario(l *loadFlags, play func(context.Context, load.Config) (*load.Result, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		for _, name := range []string{"server", "admin"} {
			if pid, _ := cmd.Flags().GetInt(name + "_pid"); pid != 0 {
				l.watch("fs-"+name, pid)
			}
		}
		return a.action(func(ctx context.Context, _ []string) error {
			config, closers, err := a.loadConfig(ctx, l)
			defer func() {
				for _, c := range closers {
					c()
				}
			}()
			if err != nil {
				return err
			}
			status := render.NewStatus(a.Err)
			config.Progress = status.Show
			result, err := play(ctx, config)
			status.Close()
			if result == nil {
				return err
			}
			return errors.Join(err, a.loadResult(result, l))
		})(cmd, args)
	}
}

func (l *loadFlags) watch(name string, pid int) {
	if l.config.Watch == nil {
		l.config.Watch = make(map[string]int)
	}
	l.config.Watch[name] = pid
}

// loadConfig turns flags into a configuration. What it opens is closed by the functions that it returns, also after an
// error.
func (a *app) loadConfig(ctx context.Context, l *loadFlags) (c load.Config, closers []func(), err error) {
	if err := l.target(); err != nil {
		return c, nil, err
	}
	for name, pid := range l.pids {
		l.watch(name, pid)
	}
	c = l.config
	if l.original {
		c.Job.AckDelay, c.Job.Classic, c.Job.Resume = time.Second, true, false
	}
	if err := os.MkdirAll(filepath.Dir(c.Job.KeyFile), 0o700); err != nil {
		return c, nil, err
	}
	if c.Command, err = workerCommand(); err != nil {
		return c, nil, err
	}
	if l.dsn != "" {
		if c.Database, err = measure.OpenDatabase(ctx, l.dsn); err != nil {
			return c, nil, err
		}
		closers = append(closers, func() { c.Database.Close() })
	}
	c.Admins, err = a.admins(l.connections, &closers)
	return c, closers, err
}

// target fills in where the clients connect.
func (l *loadFlags) target() error {
	job := &l.config.Job
	if l.clientConfig != "" {
		text, err := os.ReadFile(l.clientConfig)
		if err != nil {
			return err
		}
		var config genericpb.Config
		if err := (prototext.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, &config); err != nil {
			return fmt.Errorf("%s: %w", l.clientConfig, err)
		}
		if len(job.Servers) == 0 {
			job.Servers = config.GetServer()
		}
		job.TrustedCerts = config.GetTrustedCerts()
	}
	if l.trusted != "" {
		text, err := os.ReadFile(l.trusted)
		if err != nil {
			return err
		}
		job.TrustedCerts = string(text)
	}
	switch {
	case len(job.Servers) == 0:
		return usagef("want --server or --client_config")
	case job.TrustedCerts == "" && !job.Insecure:
		return usagef("want --trusted_certs, --client_config or --insecure")
	}
	return nil
}

// workerCommand is how this program runs as a part of the fleet.
func workerCommand() ([]string, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return []string{program, "load", loadWorker}, nil
}

// admins makes connections to each fs-admin.
func (a *app) admins(each int, closers *[]func()) ([]serverpb.AdminClient, error) {
	var admins []serverpb.AdminClient
	connection := a.connection
	for range max(each, 1) {
		for _, address := range strings.Split(a.connection.admin, ",") {
			connection.admin = address
			api, err := connection.dial()
			if err != nil {
				return nil, err
			}
			*closers = append(*closers, func() { api.Close() })
			admins = append(admins, api.Admin)
		}
	}
	return admins, nil
}
