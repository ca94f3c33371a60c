// Command fs-server terminates the connections of agents: it takes their messages for the services, and hands them the
// messages that wait for them. Run as many as the fleet needs; they share nothing but the store.
package main

import (
	"context"
	"flag"
	"os"

	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/config"
	"github.com/farspeak/farspeak/internal/config/configpath"
	"github.com/farspeak/farspeak/internal/config/textpb"
	"github.com/farspeak/farspeak/internal/daemon/memory"
	"github.com/farspeak/farspeak/internal/daemon/run"
)

func main() {
	components := flag.String("components_config", configpath.Components(), "`file` with the components: listener, store, notifications")
	servicesFile := flag.String("services_config", configpath.Services(), "`file` with the services that take messages")
	check := flag.Bool("check_config", false, "check both files, print every problem with its line and remedy, and exit")
	os.Exit(run.Main(run.Program{
		Name:  "fs-server",
		About: "fs-server terminates the connections of agents and exchanges messages with them.",
		Serve: func(ctx context.Context) error {
			if *check {
				return config.CheckFiles(os.Stdout, *components, *servicesFile, config.ServerPart)
			}
			memory.Tune(os.Getenv, os.DirFS("/"))
			return serve(ctx, *components, *servicesFile)
		},
	}, os.Args[1:]))
}

// serve reads the configuration and runs the daemon until ctx ends.
func serve(ctx context.Context, componentsPath, servicesPath string) error {
	s, err := load(componentsPath, servicesPath)
	if err != nil {
		return err
	}
	for _, warnings := range []textpb.Problems{s.server.Warnings, s.store.Warnings, s.services.Warnings} {
		for _, warning := range warnings {
			glog.Warning(warning.Error())
		}
	}
	d, err := open(ctx, s)
	if err != nil {
		return err
	}
	return d.run(ctx)
}
