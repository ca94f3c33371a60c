// Command fsctl is the operator's tool: it makes configurations and talks to fs-admin.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/cli"
)

// version is set by the linker.
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(cli.Run(ctx, version, os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
