//go:build !race

package harness

// RaceEnabled says whether the test, and so the daemons, run with the race detector.
const RaceEnabled = false
