package monitor

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// StartTime tells when a process that somebody else started began, to about a second.
func StartTime(pid int) (time.Time, error) {
	boot, err := bootTime()
	if err != nil {
		return time.Time{}, err
	}
	stat, err := readProc(pid, "stat")
	if err != nil {
		return time.Time{}, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from the third field on
	const starttime = 22 - 3
	if len(fields) <= starttime {
		return time.Time{}, fmt.Errorf("process %d: %w", pid, errStat)
	}
	ticks, err := strconv.ParseInt(fields[starttime], 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("process %d: %w", pid, errStat)
	}
	return boot.Add(time.Duration(ticks) * (time.Second / ticksPerSecond)), nil
}

// bootTime is the zero of the start times of processes.
func bootTime() (time.Time, error) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20) // the line of interrupts is long on large machines
	for lines.Scan() {
		if text, found := strings.CutPrefix(lines.Text(), "btime "); found {
			seconds, err := strconv.ParseInt(text, 10, 64)
			return time.Unix(seconds, 0), err
		}
	}
	return time.Time{}, fmt.Errorf("/proc/stat has no boot time: %w", lines.Err())
}
