package measure

import (
	"fmt"
	"time"

	"github.com/prometheus/procfs"
)

// Usage is what a process used up to now, and occupies now.
type Usage struct {
	CPU      time.Duration // user and system
	Resident int64         // bytes
}

// ReadUsage asks the kernel, which counts CPU time in hundredths of a second.
func ReadUsage(pid int) (Usage, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return Usage{}, fmt.Errorf("process %d: %w", pid, err)
	}
	stat, err := p.Stat()
	if err != nil {
		return Usage{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return Usage{
		CPU:      time.Duration(stat.CPUTime() * float64(time.Second)),
		Resident: int64(stat.ResidentMemory()),
	}, nil
}
