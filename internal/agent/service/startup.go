package service

import (
	"math"
	"sync"

	"github.com/farspeak/farspeak/internal/channel"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// startup is what a process said about itself in its first StartupData.
type startup struct {
	come chan struct{} // closed when it came

	mu      sync.Mutex
	done    bool
	pid     int
	version string
}

// introduce takes a StartupData. Only the first counts.
func (c *child) introduce(m *fspb.Message) {
	c.startup.mu.Lock()
	defer c.startup.mu.Unlock()
	if c.startup.done {
		return
	}
	c.startup.done = true
	data, err := channel.ReadStartup(m)
	if err != nil {
		c.drops.note("its StartupData cannot be read: %v", err)
		return
	}
	c.startup.pid, c.startup.version = processNumber(data.Pid), data.Version
	close(c.startup.come)
	c.state.introduced(c.measuredPID(c.startup.pid), data.Version)
}

// processNumber is a process ID of the protocol, or 0 if no process can have it.
func processNumber(pid int64) int {
	if pid < 0 || pid > math.MaxInt32 {
		return 0
	}
	return int(pid)
}

// read returns what has come so far.
func (s *startup) read() (pid int, version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid, s.version
}

// measuredPID is the process to measure: what the process says of itself if that is one of ours, as with a wrapper around
// the real program, and else the one that was started (G-18).
func (c *child) measuredPID(claimed int) int {
	if claimed > 0 && belongsTo(claimed, c.pid()) {
		return claimed
	}
	return c.pid()
}
