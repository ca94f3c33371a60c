//go:build !linux

package load

import "time"

// sleepUntil returns at a time, or a millisecond later.
func sleepUntil(t time.Time) { time.Sleep(time.Until(t)) }
