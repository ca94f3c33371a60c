package run

import (
	"bytes"
	"flag"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	_ "github.com/golang/glog" // its flags are tested
)

// newFlags is a daemon's flag set: one flag of its own, and glog's.
func newFlags() (fs *flag.FlagSet, own *string) {
	fs = flag.NewFlagSet("", flag.ContinueOnError)
	own = fs.String("components_config", "/etc/x", "components `file`")
	for _, name := range loggingFlags {
		f := flag.Lookup(name)
		fs.Var(f.Value, name, f.Usage)
	}
	return fs, own
}

// A logging flag that glog gains has to be listed, or it would stand among the daemon's own.
func TestLoggingFlagsAreComplete(t *testing.T) {
	flag.VisitAll(func(f *flag.Flag) {
		if !strings.HasPrefix(f.Name, "test.") && !slices.Contains(loggingFlags, f.Name) {
			t.Errorf("%s is not listed", f.Name)
		}
	})
	for _, name := range loggingFlags {
		if flag.Lookup(name) == nil {
			t.Errorf("%s is no flag of glog", name)
		}
	}
}

func TestFlagNotations(t *testing.T) {
	for _, args := range [][]string{
		{"-components_config", "a"}, {"-components_config=a"}, {"--components_config", "a"}, {"--components_config=a"},
	} {
		fs, own := newFlags()
		var out bytes.Buffer
		if code, ok := (Program{Name: "d"}).parseInto(fs, args, &out, &out); !ok || code != 0 || *own != "a" || out.Len() > 0 {
			t.Errorf("%q: %d, %v, %q, %s", args, code, ok, *own, out.String())
		}
	}
}

func TestHelp(t *testing.T) {
	for _, arg := range []string{"--help", "-h"} {
		fs, _ := newFlags()
		var stdout, stderr bytes.Buffer
		code, ok := (Program{Name: "d", About: "d does it."}).parseInto(fs, []string{arg}, &stdout, &stderr)
		if code != 0 || ok || stderr.Len() > 0 {
			t.Errorf("%d, %v, stderr %q", code, ok, stderr.String())
		}
		own, logging, found := strings.Cut(stdout.String(), "\nLogging")
		if !found || !strings.HasPrefix(own, "d does it.\n\nUsage: d [flags]\n\nFlags:\n") ||
			!strings.Contains(own, "  --components_config file\n        components file (default /etc/x)\n") ||
			!strings.Contains(own, "  --version\n") || strings.Contains(own, "logtostderr") || !strings.Contains(logging, "  --vmodule value\n") {
			t.Errorf("help:\n%s", stdout.String())
		}
	}
}

func TestVersion(t *testing.T) {
	fs, _ := newFlags()
	var stdout, stderr bytes.Buffer
	code, ok := (Program{Name: "d"}).parseInto(fs, []string{"--version"}, &stdout, &stderr)
	if code != 0 || ok || !strings.HasPrefix(stdout.String(), "d ") || !strings.Contains(stdout.String(), "(") || stderr.Len() > 0 {
		t.Errorf("%d, %v, %q, %q", code, ok, stdout.String(), stderr.String())
	}
}

func TestBuild(t *testing.T) {
	settings := []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"}}
	for _, tt := range []struct {
		version string
		info    debug.BuildInfo
		want    string
	}{
		{"1.2", debug.BuildInfo{Settings: settings}, "1.2 (0123456789ab, modified, go"},
		{"", debug.BuildInfo{Main: debug.Module{Version: "v1.0.0"}, Settings: settings[:1]}, "v1.0.0 (0123456789ab, go"},
		{"", debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, "devel (go"},
		{"", debug.BuildInfo{}, "devel (go"},
	} {
		if got := newBuild(tt.version, &tt.info).String(); !strings.HasPrefix(got, tt.want) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestLogToJournal(t *testing.T) {
	tests := []struct {
		name string
		env  string
		args []string
		want string
	}{
		{"no systemd", "", nil, "false"},
		{"invocation", "INVOCATION_ID", nil, "true"},
		{"journal", "JOURNAL_STREAM", []string{"-v=1"}, "true"},
		{"files wanted", "INVOCATION_ID", []string{"--logtostderr=false"}, "false"},
		{"folder wanted", "INVOCATION_ID", []string{"--log_dir=/tmp"}, "false"},
		{"both wanted", "INVOCATION_ID", []string{"--alsologtostderr"}, "false"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fs := flag.NewFlagSet("", flag.ContinueOnError)
			toStderr := fs.Bool("logtostderr", false, "")
			fs.Bool("alsologtostderr", false, "")
			fs.String("log_dir", "", "")
			fs.Int("v", 0, "")
			if err := fs.Parse(tt.args); err != nil {
				t.Fatal(err)
			}
			logToJournal(fs, func(name string) string {
				if name == tt.env {
					return "x"
				}
				return ""
			})
			if got := fs.Lookup("logtostderr").Value.String(); got != tt.want || *toStderr != (tt.want == "true") {
				t.Errorf("got %s", got)
			}
		})
	}
}
