package quietlog

import (
	"cmp"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// severities name the files. klog gives a line to the file of its severity and to all below.
var severities = []string{"INFO", "WARNING", "ERROR", "FATAL"}

// maxFileBytes is the size at which a new file is begun, as glog's.
const maxFileBytes = 1800 << 20

// file is the log of one severity. It is made for the first line, and a new one for the line that no longer fits. klog
// calls Write under its lock.
type file struct {
	severity string
	places   func() (dir, linkDir string) // as the flags say, which are parsed by the first line
	limit    int64

	current *os.File
	size    int64
}

// Write writes lines. They go to standard error when there is no file for them.
func (l *file) Write(lines []byte) (int, error) {
	if l.current == nil || l.size+int64(len(lines)) > l.limit {
		if err := l.begin(time.Now()); err != nil && l.current == nil {
			return os.Stderr.Write(lines)
		}
	}
	n, err := l.current.Write(lines)
	l.size += int64(n)
	return n, err
}

// begin makes a file, in place of the one before.
func (l *file) begin(now time.Time) error {
	dir, linkDir := l.places()
	dir = cmp.Or(dir, os.TempDir())
	name := fileName(l.severity, now)
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	if l.current != nil {
		_ = l.current.Close() // everything is written; a new file is open already
	}
	l.current = f
	head, err := fmt.Fprintf(f, "Log file created at: %s\nRunning on machine: %s\nBinary: Built with %s %s for %s/%s\n"+
		"Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg\n",
		now.Format("2006/01/02 15:04:05"), host(), runtime.Compiler, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	l.size = int64(head)
	link(filepath.Join(dir, l.linkName()), name)
	if linkDir != "" {
		link(filepath.Join(linkDir, l.linkName()), filepath.Join(dir, name))
	}
	return err
}

// linkName is under which name the newest file is found.
func (l *file) linkName() string { return program() + "." + l.severity }

// link points a name to the newest file. Without it the file is there all the same.
func link(name, target string) {
	_ = os.Remove(name)
	_ = os.Symlink(target, name)
}

// fileName is glog's: program.host.user.log.SEVERITY.date-time.process.
func fileName(severity string, now time.Time) string {
	return fmt.Sprintf("%s.%s.%s.log.%s.%s.%d", program(), host(), userName(), severity, now.Format("20060102-150405"), os.Getpid())
}

func program() string { return filepath.Base(os.Args[0]) }

// host is the machine's name up to the first dot.
func host() string {
	name, _ := os.Hostname() // only for people to read
	short, _, _ := strings.Cut(name, ".")
	return cmp.Or(short, "unknownhost")
}

// userName is fit for the name of a file also on Windows, where it has a domain.
func userName() string {
	name := ""
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	safe := func(r rune) rune {
		if strings.ContainsRune(`/\:`, r) {
			return '_'
		}
		return r
	}
	return cmp.Or(strings.Map(safe, name), "unknownuser")
}
