//go:build !linux

package monitor

// Read looks at a process.
func Read(int) (Sample, error) { return Sample{}, ErrUnsupported }

func debugStatus(int) string { return "" }
