package service

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"
)

// parentOf tells the parent of a process. There are no process groups.
func parentOf(pid int) (parent, group int, err error) {
	snapshot, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPPROCESS, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("list processes: %w", err)
	}
	defer windows.CloseHandle(snapshot)
	entry := windows.ProcessEntry32{Size: uint32(unsafe.Sizeof(windows.ProcessEntry32{}))}
	for err = windows.Process32First(snapshot, &entry); err == nil; err = windows.Process32Next(snapshot, &entry) {
		if int(entry.ProcessID) == pid {
			return int(entry.ParentProcessID), 0, nil
		}
	}
	return 0, 0, fmt.Errorf("process %d: %w", pid, err)
}
