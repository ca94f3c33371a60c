package monitor

import (
	"fmt"
	"math/bits"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of the system call proc_info.
const (
	infoOfProcess = 2 // PROC_INFO_CALL_PIDINFO
	taskFlavor    = 4 // PROC_PIDTASKINFO
)

// taskInfo is struct proc_taskinfo of the system. Times are in ticks.
type taskInfo struct {
	virtual, resident          uint64
	user, system               uint64
	threadsUser, threadsSystem uint64
	counters                   [12]int32
}

// Read looks at a process alone, not at its children. Descriptors are not counted.
func Read(pid int) (Sample, error) {
	perSecond, err := unix.SysctlUint64("hw.tbfrequency")
	if err != nil || perSecond == 0 {
		return Sample{}, fmt.Errorf("unit of times: %w", err)
	}
	s := Sample{At: time.Now()}
	var info taskInfo
	const size = unsafe.Sizeof(info)
	//lint:ignore SA1019 the library around it can only be reached with cgo
	n, _, errno := unix.Syscall6(unix.SYS_PROC_INFO, infoOfProcess, uintptr(pid), taskFlavor, 0, uintptr(unsafe.Pointer(&info)), size)
	switch {
	case errno != 0:
		return Sample{}, fmt.Errorf("process %d: %w", pid, errno)
	case n != size:
		return Sample{}, fmt.Errorf("process %d: the system tells %d bytes about it", pid, n)
	}
	s.User, s.System = duration(info.user, perSecond), duration(info.system, perSecond)
	s.Resident = int64(info.resident)
	return s, nil
}

// duration is the time of so many ticks.
func duration(ticks, perSecond uint64) time.Duration {
	high, low := bits.Mul64(ticks, uint64(time.Second))
	if high >= perSecond {
		return 0 // no time that a process could have
	}
	quotient, _ := bits.Div64(high, low, perSecond)
	return time.Duration(quotient)
}

// StartTime tells when a process that somebody else started began.
func StartTime(pid int) (time.Time, error) {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return time.Time{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return time.Unix(info.Proc.P_starttime.Unix()), nil
}

func debugStatus(int) string { return "" }
