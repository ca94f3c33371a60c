package monitor

import (
	"testing"
	"time"
)

func TestCPUTimes(t *testing.T) {
	const rest = " S 1 2 3 4 5 6 7 8 9 10 150 25 50 75 20 0 1 0 100"
	tests := []struct {
		name, stat   string
		user, system time.Duration
		fails        bool
	}{
		{"plain", "42 (echo)" + rest, 2 * time.Second, time.Second, false},
		{"space in the name", "42 (my echo)" + rest, 2 * time.Second, time.Second, false},
		{"parentheses in the name", "42 (a) b (c)" + rest, 2 * time.Second, time.Second, false},
		{"short", "42 (echo) S 1 2", 0, 0, true},
		{"no name", "42 echo S", 0, 0, true},
		{"not a number", "42 (echo) S 1 2 3 4 5 6 7 8 9 10 x 25 50 75", 0, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			user, system, err := cpuTimes([]byte(tt.stat))
			if tt.fails {
				if err == nil {
					t.Errorf("got %v, %v without an error", user, system)
				}
				return
			}
			if err != nil || user != tt.user || system != tt.system {
				t.Errorf("got %v, %v, %v", user, system, err)
			}
		})
	}
}
