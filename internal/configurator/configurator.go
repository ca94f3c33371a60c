// Package configurator makes the keys, certificates and configuration files of one installation from one description, the
// same files as the original's configurator.
//
// What exists is never made anew: a certificate file that is there is used as it is, and only the components file and the
// client files are written on every run. Each file is replaced atomically, keys before their certificates, so that a run
// that was cut short can simply be repeated: a certificate on disk always has its key beside it.
//
// The package reads and writes just the files that its input names. It prints nothing; what a person should know comes
// back in the Report.
package configurator

import (
	"time"

	configpb "github.com/farspeak/farspeak/proto/fleetspeak/config"
)

// Options are what the input file has no fields for.
type Options struct {
	// Now is the time at which certificates begin and against which they are checked. Zero: the present.
	Now time.Time
	// LeafServerCertificate makes a new server certificate one that can serve and do nothing else: no CA, extended key
	// usage serverAuth, and valid for server_name too. The original's can also sign certificates.
	LeafServerCertificate bool
}

// Report says what a run did. It is filled as far as the run came, also when it ended in an error.
type Report struct {
	// Written has the paths of the files that were made or replaced, in that order.
	Written []string
	// Kept has the paths of the existing files that were used.
	Kept []string
	// Warnings are sentences about what works now, or works for the servers, but will hurt somebody.
	Warnings []string
}

// Generate makes all files that input asks for. The first error ends it; files written before stay.
func Generate(input *configpb.Config, opts Options) (*Report, error) {
	g := &generator{input: input, opts: opts, report: &Report{}}
	if g.opts.Now.IsZero() {
		g.opts.Now = time.Now()
	}
	return g.report, g.run()
}

// generator is one run.
type generator struct {
	input  *configpb.Config
	opts   Options
	report *Report
}

func (g *generator) run() error {
	if err := validate(g.input); err != nil {
		return err
	}
	ca, err := g.authority()
	if err != nil {
		return err
	}
	server, err := g.serverCertificate(ca)
	if err != nil {
		return err
	}
	if err := g.writeComponents(server); err != nil {
		return err
	}
	return g.writeClients(ca)
}
