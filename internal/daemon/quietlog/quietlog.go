// Package quietlog is the log of a process that must not wake its machine. To its users it is glog: the same flags, lines
// and files. But glog wakes every process twice a minute to write out what it has buffered; here a line is in its files at
// once, and nothing happens between lines.
//
// The lines come from klog, which grew out of glog and starts no timer of its own as long as it does not make the files.
package quietlog

import (
	"flag"

	"k8s.io/klog/v2"
)

// flagNames are glog's flags, as far as klog has them.
var flagNames = []string{"alsologtostderr", "log_backtrace_at", "log_dir", "logtostderr", "stderrthreshold", "v", "vmodule"}

// Define defines glog's flags, with glog's defaults. Lines of klog go where they say from then on.
func Define(flags *flag.FlagSet) {
	lines := flag.NewFlagSet("", flag.ContinueOnError)
	klog.InitFlags(lines)
	_ = lines.Set("logtostderr", "false") // a flag that klog has defined, and a value that it takes
	for _, name := range flagNames {
		f := lines.Lookup(name)
		flags.Var(f.Value, name, f.Usage)
	}
	link := flags.String("log_link", "", "If non-empty, add symbolic links in this `directory` to the log files")
	flags.Int("logbuflevel", 0, "Without effect: every line is written at once")
	places := func() (dir, linkDir string) { return lines.Lookup("log_dir").Value.String(), *link }
	for _, severity := range severities {
		klog.SetOutputBySeverity(severity, &file{severity: severity, places: places, limit: maxFileBytes})
	}
}
