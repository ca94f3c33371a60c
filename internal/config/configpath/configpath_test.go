package configpath

import (
	"os"
	"path/filepath"
	"testing"
)

func TestChoose(t *testing.T) {
	tests := []struct {
		name           string
		ours, original bool
		want           int
	}{
		{"neither", false, false, 0},
		{"ours", true, false, 0},
		{"both", true, true, 0},
		{"only the original's", false, true, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			paths := [2]string{filepath.Join(dir, "ours"), filepath.Join(dir, "original")}
			for i, exists := range []bool{tt.ours, tt.original} {
				if exists {
					if err := os.WriteFile(paths[i], nil, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got := choose(paths); got != paths[tt.want] {
				t.Errorf("got %s", got)
			}
		})
	}
}

// The names are promises to operators and packages.
func TestPlaces(t *testing.T) {
	for got, want := range map[string]string{
		components[0]: "/etc/farspeak/components.config", components[1]: "/etc/fleetspeak-server/server.components.config",
		services[0]: "/etc/farspeak/services.config", services[1]: "/etc/fleetspeak-server/server.services.config",
		client[0]: "/etc/farspeak/client.config", client[1]: "/etc/fleetspeak-client/client.config",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for _, path := range []string{Components(), Services(), Client()} {
		if !filepath.IsAbs(path) {
			t.Errorf("%q is not absolute", path)
		}
	}
}
