package quietlog

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"k8s.io/klog/v2"
)

// define defines the flags on a set of their own, and puts klog back when the test ends.
func define(t *testing.T, args ...string) *flag.FlagSet {
	t.Helper()
	t.Cleanup(klog.CaptureState().Restore)
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	Define(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return flags
}

// contents are the lines of a severity, by the link to its newest file.
func contents(t *testing.T, dir, severity string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, program()+"."+severity))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Whoever starts an agent with glog's flags finds them all, with glog's defaults.
func TestFlagsAreThoseOfGlog(t *testing.T) {
	flags := define(t)
	for name, standard := range map[string]string{
		"alsologtostderr": "false", "log_backtrace_at": ":0", "log_dir": "", "log_link": "", "logbuflevel": "0",
		"logtostderr": "false", "stderrthreshold": "2", "v": "0", "vmodule": "",
	} {
		f := flags.Lookup(name)
		if f == nil {
			t.Errorf("flag %s is missing", name)
			continue
		}
		if f.Value.String() != standard {
			t.Errorf("%s is %q, want %q", name, f.Value, standard)
		}
	}
}

// A line is in the files of its severity and of all below when the call returns, and no goroutine is left behind that would
// write it later.
func TestLinesAreWrittenAtOnce(t *testing.T) {
	dir, links := t.TempDir(), t.TempDir()
	define(t, "-log_dir", dir, "-log_link", links, "-stderrthreshold", "FATAL", "-v=1")
	klog.Infof("a %s", "walrus")
	klog.Warning("an egg")
	klog.V(1).Info("a carpenter")
	klog.V(2).Info("an oyster")
	for severity, want := range map[string][]string{"INFO": {"a walrus", "an egg", "a carpenter"}, "WARNING": {"an egg"}} {
		for _, place := range []string{dir, links} {
			text := contents(t, place, severity)
			lines := regexp.MustCompile(`(?m)^[IW]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ quietlog_test\.go:\d+\] (.*)$`).FindAllStringSubmatch(text, -1)
			var got []string
			for _, line := range lines {
				got = append(got, line[1])
			}
			if strings.Join(got, ", ") != strings.Join(want, ", ") || !strings.HasPrefix(text, "Log file created at: ") {
				t.Errorf("%s in %s:\n%s\nwant %v", severity, place, text, want)
			}
		}
	}
	var goroutines strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&goroutines, 2); err != nil || strings.Contains(goroutines.String(), "klog") {
		t.Errorf("a goroutine of the log is left behind: %v\n%s", err, goroutines.String())
	}
}

// A file that is full is followed by another one, which the link names.
func TestFullFile(t *testing.T) {
	dir := t.TempDir()
	l := &file{severity: "INFO", places: func() (string, string) { return dir, "" }, limit: maxFileBytes}
	if _, err := l.Write([]byte("first\n")); err != nil {
		t.Fatal(err)
	}
	if err := l.begin(time.Now().Add(time.Hour)); err != nil { // as for a line too many, and not in the same second
		t.Fatal(err)
	}
	if _, err := l.Write([]byte("second\n")); err != nil {
		t.Fatal(err)
	}
	if text := contents(t, dir, "INFO"); !strings.Contains(text, "second") || strings.Contains(text, "first") {
		t.Errorf("the newest file holds\n%s", text)
	}
	files, err := filepath.Glob(filepath.Join(dir, program()+".*.log.INFO.*"))
	if err != nil || len(files) != 2 {
		t.Errorf("files %v, %v; want two", files, err)
	}
}

// When no file can be made the line is shown, and a file that is there goes on to be used.
func TestDirectoryThatIsMissing(t *testing.T) {
	dir := t.TempDir()
	l := &file{severity: "INFO", places: func() (string, string) { return filepath.Join(dir, "missing"), "" }, limit: maxFileBytes}
	shown := captureStderr(t, func() {
		if n, err := l.Write([]byte("nowhere\n")); n != len("nowhere\n") || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
	})
	if shown != "nowhere\n" || l.current != nil {
		t.Errorf("standard error shows %q", shown)
	}
	if err := os.Mkdir(filepath.Join(dir, "missing"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write([]byte("there\n")); err != nil || !strings.Contains(contents(t, filepath.Join(dir, "missing"), "INFO"), "there") {
		t.Errorf("a line after the directory was made is lost: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "missing")); err != nil {
		t.Fatal(err)
	}
	l.limit = 1
	if _, err := l.Write([]byte("still\n")); err != nil {
		t.Errorf("a full file with no successor: %v", err)
	}
}

func captureStderr(t *testing.T, do func()) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stderr")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before := os.Stderr
	os.Stderr = f
	defer func() { os.Stderr = before }()
	do()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
