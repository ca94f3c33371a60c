//go:build !linux && !windows && !darwin

package monitor

import "time"

// Read looks at a process.
func Read(int) (Sample, error) { return Sample{}, ErrUnsupported }

// StartTime tells when a process that somebody else started began.
func StartTime(int) (time.Time, error) { return time.Time{}, ErrUnsupported }

func debugStatus(int) string { return "" }
