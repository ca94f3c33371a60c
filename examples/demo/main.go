// Command demo shows a whole installation at work on this machine: it makes a configuration in a temporary folder, starts
// fs-server, fs-admin and three fs-clients on one SQLite file, has the backend of examples/inventory ask each client for
// facts of the machine, and stops everything again.
//
// It is run from the top of the repository: "make demo" builds the programs first, "make up" also leaves them running
// until it is interrupted. The exit code is 0 when every client answered every question and everything ended in order.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// clientCount is how many fs-clients run.
const clientCount = 3

func main() {
	// The kernel ends the programs with the thread that started them, should this process be killed.
	runtime.LockOSThread()
	bin := flag.String("bin", "bin", "directory with the programs")
	stay := flag.Bool("stay", false, "leave everything running until interrupted")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, *stay); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run makes a site, works with it, and takes it away; that of a failure stays, for its logs.
func run(ctx context.Context, bin string, stay bool) error {
	begin := time.Now()
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	s, err := newSite(bin)
	if err != nil {
		return err
	}
	err = s.work(ctx, stay)
	err = errors.Join(err, s.stop())
	if err != nil {
		s.printLogs(os.Stderr)
		return fmt.Errorf("%w (files in %s)", err, s.dir)
	}
	fmt.Printf("Everything stopped in order after %v.\n", time.Since(begin).Round(10*time.Millisecond))
	return os.RemoveAll(s.dir)
}

// work starts everything, runs the backend, and, if it is to stay, waits for the user.
func (s *site) work(ctx context.Context, stay bool) error {
	begin := time.Now()
	if err := s.configure(ctx); err != nil {
		return err
	}
	if err := s.startAll(ctx); err != nil {
		return err
	}
	fmt.Printf("fs-server, fs-admin and %d fs-clients run on %s; ready after %v.\n\n",
		clientCount, s.dir, time.Since(begin).Round(10*time.Millisecond))
	if err := s.runBackend(ctx); err != nil {
		return err
	}
	if !stay {
		return nil
	}
	s.printInvitation(os.Stdout)
	select {
	case <-ctx.Done():
		fmt.Println()
		return nil
	case p := <-s.ended:
		return fmt.Errorf("%s ended by itself: %w", p.name, p.result())
	}
}
