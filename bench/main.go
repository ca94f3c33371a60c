// Command bench measures Farspeak in the split set-up on one machine: fs-server, fs-admin and MariaDB with a durable commit
// as processes of their own, put to work by simulated fleets. Beside each figure it prints the bar that the figure has to
// meet, the floor (what the same machine does without a fabric, measured in the same run), and the ratio of the two.
//
// It is run from the top of the repository, in parts if wanted:
//
//	go run ./bench
//	go run ./bench -only floors,idle,connect
//
// docs/performance.md tells what the figures mean and how they are measured.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/farspeak/farspeak/internal/load/fleet"
)

// workerFlag is what child processes of the load tool are started with.
const workerFlag = "-worker"

func main() {
	var o options
	flag.StringVar(&o.only, "only", "", "run only these `parts`, separated by commas: "+strings.Join(partNames(), ", "))
	flag.StringVar(&o.skip, "skip", "", "leave these `parts` out")
	flag.StringVar(&o.bin, "bin", "", "directory with the programs (default: they are built)")
	flag.StringVar(&o.results, "results", "bench/results", "directory for results")
	flag.Float64Var(&o.scale, "scale", 1, "factor of all numbers of clients; the bars are for 1")
	flag.Float64Var(&o.fill, "fill", 1, "factor of what part growth puts into the database: 10 million results, 1 million clients, 100,000 messages")
	flag.DurationVar(&o.hold, "hold", time.Minute, "how long parts idle and agent leave their clients alone; the bar of idle is for an hour")
	flag.DurationVar(&o.measure, "for", 10*time.Second, "how long a rate is measured")
	flag.BoolVar(&o.profiles, "profiles", false, "take profiles of fs-server and fs-admin meanwhile, CPU and memory, and of the load tool's CPU")
	flag.StringVar(&o.pool, "buffer_pool", "3G", "memory of the database for its pages")
	flag.BoolVar(&o.stay, "stay", false, "only start an installation, say how to talk to it, and leave it until Ctrl-C")
	worker := flag.Bool(strings.TrimPrefix(workerFlag, "-"), false, "for the program itself: run a part of a fleet")
	cpuProfile := flag.String(strings.TrimPrefix(workerProfileFlag, "-"), "", "for the program itself: write a CPU profile of this worker to this `file`")
	idle := flag.Bool(strings.TrimPrefix(serviceFlag, "-"), false, "for the program itself: be a service of the agent")
	floor := flag.String("floor_server", "", "for the program itself: run a server of this `kind`")
	address := flag.String("floor_address", "", "for the program itself: where it listens")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	var err error
	switch {
	case *worker:
		err = profiled(*cpuProfile, func() error { return fleet.Serve(ctx, os.Stdin, os.Stdout) })
	case *idle:
		err = runService(ctx)
	case *floor != "":
		err = floorServer(ctx, *floor, *address)
	default:
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	only, skip, bin, results, pool string
	scale, fill                    float64
	hold, measure                  time.Duration
	profiles, stay                 bool
}

// run makes the programs and the installation, runs the parts, and prints what they measured.
func run(ctx context.Context, o options) error {
	chosen, err := choose(o.only, o.skip)
	if err != nil {
		return err
	}
	if o.bin == "" {
		if o.bin, err = os.MkdirTemp("", "farspeak-bench-bin-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.bin)
		fmt.Fprintln(os.Stderr, "building the programs")
		build := exec.CommandContext(ctx, "go", "build", "-o", o.bin+string(filepath.Separator), "./cmd/...")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	fmt.Fprintln(os.Stderr, "starting the database")
	s, err := newSite(ctx, o.bin, o.pool)
	if err != nil {
		return err
	}
	b := &bench{options: o, site: s, keys: filepath.Join(s.dir, "keys")}
	if o.stay {
		err = b.stayUp(ctx)
	} else {
		err = b.runParts(ctx, chosen)
	}
	if closeErr := s.close(err != nil && ctx.Err() == nil); err == nil {
		err = closeErr
	}
	return err
}

// stayUp starts an installation and leaves it to the user.
func (b *bench) stayUp(ctx context.Context) error {
	if err := b.fresh(ctx, 1); err != nil {
		return err
	}
	s := b.site
	authority := filepath.Join(s.dir, "ca.pem")
	if err := os.WriteFile(authority, []byte(s.certificates.certificate), 0o644); err != nil {
		return err
	}
	v := s.servers[0]
	fmt.Printf(`FLAGS="--server %s --trusted_certs %s --server_pid %d --admin_pid %d --pid mariadbd=%d --admin %s --database_dsn %s"
fsctl load hold $FLAGS
services: %s, and %s with its backend at %s
profiles: http://%s/debug/pprof/ and http://%s/debug/pprof/
Ctrl-C ends it.
`, v.clients, authority, v.pid(), s.admin.pid(), s.database.PID(), s.adminAddr, s.dsn, noopService, grpcService, s.backend, v.stats, s.adminStats)
	<-ctx.Done()
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
