package monitor

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Read looks at a process alone, not at its children. Handles are not counted.
func Read(pid int) (Sample, error) {
	process, err := openProcess(pid)
	if err != nil {
		return Sample{}, err
	}
	defer windows.CloseHandle(process)
	s := Sample{At: time.Now()}
	var began, ended, system, user windows.Filetime
	if err := windows.GetProcessTimes(process, &began, &ended, &system, &user); err != nil {
		return Sample{}, fmt.Errorf("times of process %d: %w", pid, err)
	}
	s.User, s.System = duration(user), duration(system)
	if s.Resident, err = workingSet(process); err != nil {
		return Sample{}, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	return s, nil
}

// StartTime tells when a process that somebody else started began.
func StartTime(pid int) (time.Time, error) {
	process, err := openProcess(pid)
	if err != nil {
		return time.Time{}, err
	}
	defer windows.CloseHandle(process)
	var began, ended, system, user windows.Filetime
	if err := windows.GetProcessTimes(process, &began, &ended, &system, &user); err != nil {
		return time.Time{}, fmt.Errorf("times of process %d: %w", pid, err)
	}
	return time.Unix(0, began.Nanoseconds()), nil
}

func openProcess(pid int) (windows.Handle, error) {
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return 0, fmt.Errorf("process %d: %w", pid, err)
	}
	return process, nil
}

// duration is a time span, which counts hundreds of nanoseconds.
func duration(t windows.Filetime) time.Duration {
	return time.Duration(uint64(t.HighDateTime)<<32|uint64(t.LowDateTime)) * 100
}

// memoryCounters are PROCESS_MEMORY_COUNTERS of the Windows API.
type memoryCounters struct {
	size, pageFaults               uint32
	peakWorkingSet, workingSet     uintptr
	peakPagedPool, pagedPool       uintptr
	peakNonPagedPool, nonPagedPool uintptr
	pagefile, peakPagefile         uintptr
}

var getProcessMemoryInfo = windows.NewLazySystemDLL("kernel32.dll").NewProc("K32GetProcessMemoryInfo")

// workingSet is what of a process is in memory, in bytes.
func workingSet(process windows.Handle) (int64, error) {
	var counters memoryCounters
	counters.size = uint32(unsafe.Sizeof(counters))
	done, _, err := getProcessMemoryInfo.Call(uintptr(process), uintptr(unsafe.Pointer(&counters)), uintptr(counters.size))
	if done == 0 {
		return 0, err
	}
	return int64(counters.workingSet), nil
}

func debugStatus(int) string { return "" }
