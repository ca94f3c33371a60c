// Command fs-admin takes messages, broadcasts and questions from backends over gRPC. All fs-admins of an installation are
// equal; any load balancer will do.
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
	components := flag.String("components_config", configpath.Components(), "`file` with the components: store, admin listener")
	check := flag.Bool("check_config", false, "check the file, print every problem with its line and remedy, and exit")
	var o overrides
	flag.StringVar(&o.stats, "stats_address", "", "`host:port` for metrics, instead of the one of the file")
	flag.StringVar(&o.health, "health_address", "", "`host:port` for health checks, instead of the one of the file")
	os.Exit(run.Main(run.Program{
		Name:  "fs-admin",
		About: "fs-admin takes messages for clients from backends over gRPC.",
		Serve: func(ctx context.Context) error {
			if *check {
				return config.CheckFiles(os.Stdout, *components, "", config.AdminPart)
			}
			memory.Tune(os.Getenv, os.DirFS("/"))
			return serve(ctx, *components, o)
		},
	}, os.Args[1:]))
}

// serve reads the configuration and runs the daemon until ctx ends.
func serve(ctx context.Context, componentsPath string, o overrides) error {
	s, err := load(componentsPath, o)
	if err != nil {
		return err
	}
	for _, warnings := range []textpb.Problems{s.admin.Warnings, s.store.Warnings} {
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
