// Command hostfacts is a small service for clients: to each message of the type "HostFacts" it answers with facts of its
// host. ../README.md says how to install it.
//
// The agent starts it and talks to it over pipes. With -socket it is a program that somebody else starts, and connects to
// the agent.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/farspeak/farspeak/sdk/service"
)

// version is what resource reports show.
const version = "1.0"

func main() {
	socket := flag.String("socket", "", "connect to the agent's socket at this path, the api_proxy_path of the service file")
	heartbeat := flag.Duration("heartbeat", 20*time.Second, "longest silence; 0 means no heartbeats")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *socket != "" {
		err = serveSocket(ctx, *socket)
	} else {
		err = serveDaemon(ctx, *heartbeat)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostfacts:", err)
		stop()
		os.Exit(1)
	}
}

// serveDaemon answers until the agent ends this process.
func serveDaemon(ctx context.Context, heartbeat time.Duration) error {
	daemon, err := service.OpenDaemon(ctx, service.DaemonConfig{Version: version, Heartbeat: heartbeat})
	if err != nil {
		return err
	}
	return errors.Join(service.Serve(ctx, daemon, answer), daemon.Close())
}

// serveSocket answers until ctx ends, whatever the agent does.
func serveSocket(ctx context.Context, path string) error {
	socket, err := service.OpenSocket(service.SocketConfig{
		Path: path, Version: version,
		Failed: func(err error) { fmt.Fprintln(os.Stderr, "hostfacts:", err) },
	})
	if err != nil {
		return err
	}
	return errors.Join(service.Serve(ctx, socket, answer), socket.Close())
}
