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

// Machine is what became of the time of all cores together since the machine started.
type Machine struct {
	Busy   time.Duration // they worked for anybody here
	Stolen time.Duration // there was work, and the host of this virtual machine let others run
}

// ReadMachine asks the kernel.
func ReadMachine() (Machine, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return Machine{}, fmt.Errorf("machine: %w", err)
	}
	stat, err := fs.Stat()
	if err != nil {
		return Machine{}, fmt.Errorf("machine: %w", err)
	}
	c := stat.CPUTotal
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	return Machine{Busy: seconds(c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ), Stolen: seconds(c.Steal)}, nil
}
