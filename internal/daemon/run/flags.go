package run

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// loggingFlags are those that glog defines.
var loggingFlags = []string{
	"alsologtostderr", "log_backtrace_at", "log_dir", "log_link", "logbuflevel", "logtostderr", "stderrthreshold", "v", "vmodule",
}

// destinationFlags are those by which an operator says where the log goes.
var destinationFlags = []string{"alsologtostderr", "log_dir", "logtostderr"}

// parse reads the command line into flag.CommandLine, where programs and glog define their flags. When ok is false the
// process ends with the code: after --help or --version with 0, after a wrong command line with 2.
func (p Program) parse(args []string) (code int, ok bool) {
	return p.parseInto(flag.CommandLine, args, os.Stdout, os.Stderr)
}

func (p Program) parseInto(fs *flag.FlagSet, args []string, stdout, stderr io.Writer) (code int, ok bool) {
	version := fs.Bool("version", false, "print version and build, and exit")
	fs.Init(p.Name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // errors and help are written here, to the stream where they belong
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		p.help(fs, stdout)
		return codeOK, false
	case err == nil && fs.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case err == nil && *version:
		fmt.Fprintf(stdout, "%s %s\n", p.Name, ReadBuild())
		return codeOK, false
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\nRun '%s --help' for all flags.\n", p.Name, err, p.Name)
		return codeUsage, false
	}
	logToJournal(fs, os.Getenv)
	return codeOK, true
}

// logToJournal makes standard error the log when systemd runs the process, since it keeps what is written there and knows
// where it came from; files in /tmp, glog's default, are then of no use. Whoever says where the log goes is obeyed.
func logToJournal(fs *flag.FlagSet, getenv func(string) string) {
	if getenv("INVOCATION_ID") == "" && getenv("JOURNAL_STREAM") == "" {
		return
	}
	chosen := false
	fs.Visit(func(f *flag.Flag) { chosen = chosen || slices.Contains(destinationFlags, f.Name) })
	if !chosen && fs.Lookup("logtostderr") != nil {
		_ = fs.Set("logtostderr", "true") // cannot fail: the flag exists and is a bool
	}
}

// help writes the program's own flags first, then glog's.
func (p Program) help(fs *flag.FlagSet, w io.Writer) {
	fmt.Fprintf(w, "%s\n\nUsage: %s [flags]\n\nFlags:\n", p.About, p.Name)
	fs.VisitAll(func(f *flag.Flag) {
		if !slices.Contains(loggingFlags, f.Name) {
			helpFlag(w, f)
		}
	})
	fmt.Fprint(w, "\nLogging, to files in the temporary directory unless told otherwise; under systemd to standard error:\n")
	fs.VisitAll(func(f *flag.Flag) {
		if slices.Contains(loggingFlags, f.Name) {
			helpFlag(w, f)
		}
	})
	fmt.Fprint(w, "\nA flag takes one dash or two, and its value after a space or \"=\"; true and false only after \"=\".\n")
}

func helpFlag(w io.Writer, f *flag.Flag) {
	kind, usage := flag.UnquoteUsage(f)
	head := "  --" + f.Name
	if kind != "" {
		head += " " + kind
	}
	if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != ":0" {
		usage += " (default " + f.DefValue + ")"
	}
	fmt.Fprintf(w, "%s\n        %s\n", head, strings.ReplaceAll(usage, "\n", "\n        "))
}
