package service

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/farspeak/farspeak/internal/agent/monitor"
)

// errOrphan says that the parent of a process has ended.
var errOrphan = errors.New("its parent has ended")

// parentOf tells the parent of a process. There are no process groups. A process keeps the number of its parent when that has
// ended, and another process may have it then: that one is younger.
func parentOf(pid int) (parent, group int, err error) {
	snapshot, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPPROCESS, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("list processes: %w", err)
	}
	defer windows.CloseHandle(snapshot)
	entry := windows.ProcessEntry32{Size: uint32(unsafe.Sizeof(windows.ProcessEntry32{}))}
	for err = windows.Process32First(snapshot, &entry); err == nil; err = windows.Process32Next(snapshot, &entry) {
		if int(entry.ProcessID) == pid {
			parent = int(entry.ParentProcessID)
			return parent, 0, checkOlder(parent, pid)
		}
	}
	return 0, 0, fmt.Errorf("process %d: %w", pid, err)
}

func checkOlder(parent, child int) error {
	born, err := monitor.StartTime(child)
	if err != nil {
		return err
	}
	before, err := monitor.StartTime(parent)
	if err != nil {
		return fmt.Errorf("process %d: %w: %w", child, errOrphan, err)
	}
	if before.After(born) {
		return fmt.Errorf("process %d: %w", child, errOrphan)
	}
	return nil
}
