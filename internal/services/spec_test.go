package services_test

import (
	"strings"
	"testing"

	"github.com/farspeak/farspeak/internal/services"
)

func TestNewRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		specs      []services.Spec
	}{
		{"no name", "name", []services.Spec{{Factory: "NOOP"}}},
		{"reserved name", "system", []services.Spec{{Name: "system", Factory: "NOOP"}}},
		{"reserved name", "client", []services.Spec{{Name: "client", Factory: "NOOP"}}},
		{"long name", "200 bytes", []services.Spec{{Name: strings.Repeat("x", 200), Factory: "NOOP"}}},
		{"name given twice", "twice", []services.Spec{{Name: "S", Factory: "NOOP"}, {Name: "S", Factory: "NOOP"}}},
		{"unknown factory", "Magic", []services.Spec{{Name: "S", Factory: "Magic"}}},
		{"negative parallelism", "max_parallelism", []services.Spec{{Name: "S", Factory: "NOOP", MaxParallelism: -1}}},
		{"no backend", "target", []services.Spec{{Name: "S", Factory: "GRPC"}}},
		{"no target", "target", []services.Spec{{Name: "S", Factory: "GRPC", GRPC: &services.Backend{Insecure: true}}}},
		{"no security", "insecure", []services.Spec{{Name: "S", Factory: "GRPC", GRPC: &services.Backend{Target: "x:1"}}}},
		{"bad target", "config.target", []services.Spec{{Name: "S", Factory: "GRPC", GRPC: &services.Backend{Target: "%zz", Insecure: true}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := services.New(services.Config{Store: newFakeStore(), ServerID: "x", Services: tc.specs})
			if err == nil {
				m.Close(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("New = %v, want an error that names %q", err, tc.want)
			}
		})
	}
	for name, cfg := range map[string]services.Config{"store": {ServerID: "x"}, "server ID": {Store: newFakeStore()}} {
		if _, err := services.New(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("New without a %s = %v", name, err)
		}
	}
}

func TestServicesAreClosedOnce(t *testing.T) {
	s := newFakeService(nil)
	m, err := services.New(services.Config{Store: newFakeStore(), ServerID: "x", Services: one("S", s)})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(t.Context()); err != nil || s.closed != 1 {
		t.Errorf("Close = %v, the service was closed %d times", err, s.closed)
	}
	// A start that fails closes what it made.
	s = newFakeService(nil)
	if _, err := services.New(services.Config{Store: newFakeStore(), ServerID: "x", Services: append(one("A", s), services.Spec{Name: "B"})}); err == nil || s.closed != 1 {
		t.Errorf("New = %v, the service was closed %d times", err, s.closed)
	}
}
