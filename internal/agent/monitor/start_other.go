//go:build !linux

package monitor

import "time"

// StartTime tells when a process that somebody else started began.
func StartTime(int) (time.Time, error) { return time.Time{}, ErrUnsupported }
