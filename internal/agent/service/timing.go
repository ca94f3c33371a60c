package service

import (
	"time"

	"github.com/farspeak/farspeak/internal/channel"
)

// timing are the intervals of the local protocols. Only tests use others than these.
type timing struct {
	respawn     time.Duration // at least, between two starts of a process
	stopStep    time.Duration // each step of a stop: closed pipe, interrupt, kill
	startupWait time.Duration // for StartupData before supervision starts without
	recheck     time.Duration // from the first doubt to the kill of a silent process
	channel     time.Duration // for each magic, and for the rest of a message
	ackDelay    time.Duration // in which LocalAcks gather
}

var protocolTiming = timing{
	respawn:     time.Minute,
	stopStep:    time.Second,
	startupWait: 10 * time.Second,
	recheck:     2 * time.Second,
	channel:     channel.DefaultTimeout,
	ackDelay:    100 * time.Millisecond,
}

// pause waits. It returns false when done closed first.
func pause(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-done:
		return false
	}
}
