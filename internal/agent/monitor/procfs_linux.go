package monitor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	ticksPerSecond = 100 // the unit of CPU times in procfs, on every architecture that Go knows
	maxProcFile    = 64 << 10
	maxDebugStatus = 16 << 10
)

// Read looks at a process.
func Read(pid int) (Sample, error) {
	stat, err := readProc(pid, "stat")
	if err != nil {
		return Sample{}, err
	}
	s := Sample{At: time.Now()}
	if s.User, s.System, err = cpuTimes(stat); err != nil {
		return Sample{}, fmt.Errorf("process %d: %w", pid, err)
	}
	statm, err := readProc(pid, "statm")
	if err != nil {
		return Sample{}, err
	}
	if s.Resident, err = resident(statm); err != nil {
		return Sample{}, fmt.Errorf("process %d: %w", pid, err)
	}
	s.Descriptors = descriptors(pid)
	return s, nil
}

func readProc(pid int, name string) ([]byte, error) {
	f, err := os.Open(procPath(pid, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxProcFile))
}

func procPath(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

var errStat = errors.New("malformed stat file")

// cpuTimes reads the CPU times of a process and of its children that ended. Fields are counted from behind the program's
// name, which stands in parentheses and may hold anything, spaces and parentheses too.
func cpuTimes(stat []byte) (user, system time.Duration, err error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, 0, errStat
	}
	fields := strings.Fields(string(stat[end+1:])) // from the third field on
	const utime, stime, cutime, cstime = 14 - 3, 15 - 3, 16 - 3, 17 - 3
	if len(fields) <= cstime {
		return 0, 0, errStat
	}
	ticks := func(i int) time.Duration {
		n, parseErr := strconv.ParseInt(fields[i], 10, 64)
		if parseErr != nil {
			err = errStat
		}
		return time.Duration(n) * (time.Second / ticksPerSecond)
	}
	user, system = ticks(utime)+ticks(cutime), ticks(stime)+ticks(cstime)
	return user, system, err
}

// resident reads the second field of statm, in pages.
func resident(statm []byte) (int64, error) {
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return 0, errors.New("malformed statm file")
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0, errors.New("malformed statm file")
	}
	return pages * int64(os.Getpagesize()), nil
}

// descriptors counts the open descriptors; 0 when they may not be seen.
func descriptors(pid int) int {
	dir, err := os.Open(procPath(pid, "fd"))
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0
	}
	return len(names)
}

// debugStatus is the status file of the process.
func debugStatus(pid int) string {
	status, err := readProc(pid, "status")
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(string(status[:min(len(status), maxDebugStatus)]), "?")
}
