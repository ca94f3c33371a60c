package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	bin := flag.String("bin", "", "directory with the programs (default: they are built)")
	stay := flag.Bool("stay", false, "only start the installation, and say how to talk to it")
	pool := flag.String("buffer_pool", "2G", "memory of the database for its pages")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, *pool, *stay); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, pool string, stay bool) (err error) {
	if bin == "" {
		if bin, err = os.MkdirTemp("", "farspeak-bench-bin-"); err != nil {
			return err
		}
		defer os.RemoveAll(bin)
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin+string(filepath.Separator), "./cmd/...").CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	s, err := newSite(ctx, bin, pool)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(err != nil)) }()
	if _, err := s.startServer(ctx, "fs-server"); err != nil {
		return err
	}
	if err := s.startAdmin(ctx); err != nil {
		return err
	}
	if stay {
		os.WriteFile(filepath.Join(s.dir, "ca.pem"), []byte(s.certificates.certificate), 0o644)
		fmt.Printf(`S="--server %s --trusted_certs %s/ca.pem --server_pid %d --admin_pid %d --pid mariadbd=%d --admin %s --database_dsn %s"
profiles: http://%s/debug/pprof/ http://%s/debug/pprof/
services: %s, %s (backend %s)
`, s.servers[0].clients, s.dir, s.servers[0].pid(), s.admin.pid(), s.database.PID(), s.adminAddr, s.dsn, s.servers[0].stats, s.adminStats, noopService, grpcService, s.backend)
		<-ctx.Done()
	}
	return nil
}
