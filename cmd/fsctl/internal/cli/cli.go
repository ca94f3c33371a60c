// Package cli is the command line of fsctl: one file for each group of subcommands. Commands read their words and flags,
// make calls, and print results; how the daemon is reached is in adminapi, how payloads are built in payload, and how
// results look in render.
//
// Exit codes: 0 all done; 1 something failed; 2 the command line is wrong. Results go to standard output, everything
// else to standard error.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/render"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// Streams are where a command reads and writes.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// Run executes one command line, without the program's name, and returns the exit code.
func Run(ctx context.Context, version string, args []string, streams Streams) int {
	a := &app{Streams: streams}
	root := a.root(version)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitOK
	case !a.started || errors.As(err, new(usageError)):
		fmt.Fprintf(a.Err, "fsctl: %v\nRun \"%s --help\" for usage.\n", err, a.commandPath(root, args))
		return exitUsage
	}
	fmt.Fprintf(a.Err, "fsctl: %v\n", err)
	return exitFailed
}

// app is one execution.
type app struct {
	Streams
	output     string // --output
	connection connectionFlags
	started    bool // the command line was in order and the command ran
}

// usageError is a mistake on the command line that only the command itself could see.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

func (a *app) root(version string) *cobra.Command {
	root := &cobra.Command{
		Use:   "fsctl",
		Short: "Operate a Farspeak installation",
		Long: `fsctl makes the configuration of a Farspeak installation, migrates its database, and talks to a running
fs-admin: clients, messages, broadcasts, files, servers, backlogs and dead letters.

Exit codes: 0 all done, 1 something failed, 2 the command line is wrong.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          a.group,
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	// The daemons' flags have underscores, as glog's and the original's do; dashes work here too.
	root.SetGlobalNormalizationFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.ReplaceAll(name, "-", "_"))
	})
	root.PersistentFlags().StringVarP(&a.output, "output", "o", "table", "how to print results: table or json")
	complete(root, "output", render.Formats...)
	root.AddCommand(
		a.configCommand(), a.migrateCommand(),
		a.clientCommand(), a.messageCommand(), a.broadcastCommand(), a.fileCommand(),
		a.serverCommand(), a.backlogCommand(), a.deadletterCommand(), a.loadCommand(),
	)
	return root
}

// group is what a command that only holds others does: nothing is done, which is no success.
func (a *app) group(cmd *cobra.Command, _ []string) error {
	fmt.Fprint(a.Err, cmd.UsageString(), "\n")
	return usagef("%s needs a subcommand", cmd.CommandPath())
}

// newGroup returns a command that holds others.
func (a *app) newGroup(use, short string, commands ...*cobra.Command) *cobra.Command {
	group := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: a.group}
	group.AddCommand(commands...)
	return group
}

// newAPIGroup returns one whose commands talk to fs-admin.
func (a *app) newAPIGroup(use, short string, commands ...*cobra.Command) *cobra.Command {
	group := a.newGroup(use, short, commands...)
	a.connection.register(group)
	return group
}

// action wraps the work of a command: what fails from here on is no mistake of the command line.
func (a *app) action(work func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(render.Formats, a.output) {
			return usagef("--output %s: want %s", a.output, strings.Join(render.Formats, " or "))
		}
		a.started = true
		return work(cmd.Context(), args)
	}
}

func (a *app) list(heads ...string) *render.List {
	return render.NewList(a.Out, a.output, heads...)
}

func (a *app) one(value any, fields ...render.Field) error {
	return render.One(a.Out, a.output, value, fields...)
}

// commandPath is the command that args mean, as far as they mean one.
func (a *app) commandPath(root *cobra.Command, args []string) string {
	if cmd, _, err := root.Find(args); err == nil {
		return cmd.CommandPath()
	}
	return root.Name()
}

// complete gives a flag a fixed set of values for the shell's completion.
func complete(cmd *cobra.Command, flag string, values ...string) {
	// The error says that there is no such flag; the test of all commands finds that out as well.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// required marks flags without which a command cannot work.
func required(cmd *cobra.Command, flags ...string) {
	for _, f := range flags {
		_ = cmd.MarkFlagRequired(f) // as in complete
	}
}
