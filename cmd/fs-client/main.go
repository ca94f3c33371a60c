// Command fs-client is the agent: it keeps a machine in touch with its fs-servers and runs the machine's services.
package main

import (
	"context"
	"errors"
	"flag"
	"os"

	"github.com/farspeak/farspeak/internal/config/agentconfig"
	"github.com/farspeak/farspeak/internal/config/configpath"
	"github.com/farspeak/farspeak/internal/daemon/run"
)

func main() {
	var o options
	flag.StringVar(&o.config, "config", configpath.Client(), "client configuration `file`")
	flag.BoolVar(&o.check, "check_config", false, "check the configuration and the files of its directory, and exit")
	flag.BoolVar(&o.status, "status", false, "show what the running agent of the configuration file does, and exit")
	flag.StringVar(&o.output, "output", outputTable, "`form` of what --status shows: table or json")
	flag.StringVar(&o.profileDir, "profile_dir", dumpDirectory, "`directory` for profiles and goroutine dumps")
	flag.BoolVar(&o.stdForward, "std_forward", false, "attach child processes to the agent's own standard streams; for tests")
	p := newProcess(&o)
	os.Exit(run.Main(run.Program{
		Name:   "fs-client",
		About:  "fs-client keeps a machine in touch with its fs-servers and runs the machine's services.",
		Serve:  p.serveManaged,
		Hangup: p.hangup,
	}, os.Args[1:]))
}

// options are the command line.
type options struct {
	config     string
	check      bool
	status     bool
	output     string
	profileDir string
	stdForward bool
}

// serve runs the process.
func (p *process) serve(ctx context.Context) error {
	if p.options.config == "" {
		return errors.New("--config is missing: name the client configuration file")
	}
	if p.options.check {
		return agentconfig.CheckFiles(os.Stdout, p.options.config)
	}
	if p.options.status {
		return showStatus(ctx, os.Stdout, p.options)
	}
	stop := p.watchProfileSignal()
	defer stop()
	return p.superviseInstances(ctx)
}
