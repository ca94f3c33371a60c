package service

import (
	"fmt"
	"sync"
	"time"

	"github.com/golang/glog"
)

// dropLogPeriod is how often at most the log tells of a process whose messages are of no use.
const dropLogPeriod = time.Minute

// dropLog tells of messages that were dropped, without letting a process flood the log.
type dropLog struct {
	service string

	mu      sync.Mutex
	last    time.Time
	dropped int // since last
}

// note counts a message that was dropped, and why.
func (l *dropLog) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped++
	if time.Since(l.last) < dropLogPeriod {
		return
	}
	glog.Warningf("service %s: %d messages of the process are dropped, the last one because %s", l.service, l.dropped,
		fmt.Sprintf(format, args...))
	l.last, l.dropped = time.Now(), 0
}
