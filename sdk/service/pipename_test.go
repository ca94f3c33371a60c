package service_test

import (
	"strings"
	"testing"

	"github.com/farspeak/farspeak/sdk/service"
)

func TestPipeNames(t *testing.T) {
	random := strings.Repeat("aZ0-_xyz", 16)
	for name, want := range map[string]bool{
		`\\.\pipe\` + random:              true,
		`\\.\pipe\` + random + "\n":       false,
		`\\.\pipe\` + random[1:]:          false,
		`\\.\pipe\` + random[1:] + "=":    false,
		`\\.\pipe\` + random[1:] + `\`:    false,
		`\\host\pipe\` + random:           false,
		`\\.\pipe\` + random[2:] + "\xc3": false,
		"":                                false,
	} {
		if got := service.IsPipeName(name); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
}
