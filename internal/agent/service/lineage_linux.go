package service

import (
	"bytes"
	"fmt"
	"os"
)

// parentOf tells the parent and the process group of a process.
func parentOf(pid int) (parent, group int, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	fields := stat[bytes.LastIndexByte(stat, ')')+1:] // the program's name before it may hold anything
	var state rune
	if _, err := fmt.Fscanf(bytes.NewReader(fields), " %c %d %d", &state, &parent, &group); err != nil {
		return 0, 0, fmt.Errorf("stat of process %d: %w", pid, err)
	}
	return parent, group, nil
}
