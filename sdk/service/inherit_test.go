package service_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/farspeak/farspeak/sdk/service"
)

func TestEnvironmentIsChecked(t *testing.T) {
	for name, c := range map[string]struct{ in, out, want string }{
		"none":         {"", "", "FLEETSPEAK_COMMS_CHANNEL_INFD is not set"},
		"one":          {"3", "", "FLEETSPEAK_COMMS_CHANNEL_OUTFD is not set"},
		"no number":    {"3", "four", "FLEETSPEAK_COMMS_CHANNEL_OUTFD"},
		"negative":     {"-1", "4", "FLEETSPEAK_COMMS_CHANNEL_INFD"},
		"the same":     {"4", "4", "both 4"},
		"not open":     {"100001", "100002", "100001"},
		"out of range": {"99999999999999999999", "4", "FLEETSPEAK_COMMS_CHANNEL_INFD"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("FLEETSPEAK_COMMS_CHANNEL_INFD", c.in)
			t.Setenv("FLEETSPEAK_COMMS_CHANNEL_OUTFD", c.out)
			_, err := service.OpenDaemon(t.Context(), service.DaemonConfig{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	if _, err := service.OpenDaemon(t.Context(), service.DaemonConfig{In: io.NopCloser(&bytes.Buffer{})}); err == nil {
		t.Error("In without Out was taken")
	}
}
