// Command fsctl is the operator's tool: it makes configurations, migrates the database, and talks to fs-admin.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/cli"
	"github.com/farspeak/farspeak/internal/daemon/run"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(cli.Run(ctx, run.ReadBuild().String(), os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
