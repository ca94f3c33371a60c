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

// Busy is how long the cores of the machine worked for anybody, since it started, all cores together.
func Busy() (time.Duration, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return 0, fmt.Errorf("machine: %w", err)
	}
	stat, err := fs.Stat()
	if err != nil {
		return 0, fmt.Errorf("machine: %w", err)
	}
	c := stat.CPUTotal
	return time.Duration((c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ + c.Steal) * float64(time.Second)), nil
}
