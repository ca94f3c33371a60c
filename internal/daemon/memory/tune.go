package memory

import (
	"bytes"
	"io/fs"
	"math"
	"path"
	"runtime/debug"
	"strconv"
)

const (
	// percent is GOGC of a server of many connections. What lives long is small there (5 KiB a session) and what a handshake
	// leaves is large (75 KiB), so a collection for each doubling of the heap, Go's default, collects too often; the
	// Collector sees to it that the growth does not stay.
	percent = 200
	// limitShare is the part of the machine's memory that the process may fill before it collects more often than that.
	limitShare = 0.75
	// ballastBytes is the size of the ballast. With percent it lets 64 MiB of garbage gather however little is in use; a
	// busy server of some megabytes would collect dozens of times a second.
	ballastBytes = 32 << 20
	// ballastShare bounds the ballast by a part of the memory limit: the runtime counts it there, though it is nowhere.
	ballastShare = 16
)

// ballast is never touched, so the system provides no memory for it. The collector, which lets the heap grow by a part of
// what is in use, takes it for used. It belongs to the process, as the collector's other settings do.
var ballast []byte

// Tune chooses the settings of the garbage collector for a daemon that serves many. What the operator has set in the
// environment, GOGC or GOMEMLIMIT, stays. root is the root of the file system.
func Tune(getenv func(string) string, root fs.FS) {
	if limit := limit(root); getenv("GOMEMLIMIT") == "" && limit > 0 {
		debug.SetMemoryLimit(limit)
	}
	if getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
		ballast = make([]byte, min(ballastBytes, debug.SetMemoryLimit(-1)/ballastShare))
	}
}

// limit is what the process should not grow beyond: a part of the machine's memory, or of its control group's when that is
// less. 0 says that neither is known.
func limit(root fs.FS) int64 {
	least := uint64(math.MaxInt64)
	for _, known := range []func(fs.FS) (uint64, bool){machineMemory, groupMemory} {
		if bytes, ok := known(root); ok {
			least = min(least, bytes)
		}
	}
	if least == math.MaxInt64 {
		return 0
	}
	return int64(float64(least) * limitShare)
}

// machineMemory is the memory of a Linux machine.
func machineMemory(root fs.FS) (uint64, bool) {
	info, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(info) {
		if total, ok := bytes.CutPrefix(line, []byte("MemTotal:")); ok {
			kib, err := strconv.ParseUint(string(bytes.TrimSuffix(bytes.TrimSpace(total), []byte(" kB"))), 10, 50)
			return kib << 10, err == nil
		}
	}
	return 0, false
}

// groupMemory is the least limit of the control groups (version 2) that the process is in: systemd's MemoryMax or
// MemoryHigh, a container's memory.
func groupMemory(root fs.FS) (uint64, bool) {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	least := uint64(math.MaxUint64)
	for line := range bytes.Lines(groups) {
		group, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("0::/"))
		if !ok {
			continue
		}
		for at := path.Clean(string(group)); ; at = path.Dir(at) {
			for _, file := range []string{"memory.max", "memory.high"} {
				least = min(least, groupLimit(root, path.Join("sys/fs/cgroup", at, file)))
			}
			if at == "." {
				break
			}
		}
	}
	return least, least != math.MaxUint64
}

// groupLimit reads one limit. "max", or no file, is none.
func groupLimit(root fs.FS, name string) uint64 {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return math.MaxUint64
	}
	bytes, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 63)
	if err != nil {
		return math.MaxUint64
	}
	return bytes
}
