package config_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/config"
)

func TestServices(t *testing.T) {
	dir := t.TempDir()
	certificate, _ := newYearPair(t)
	roots := write(t, dir, "roots.pem", certificate)
	path := write(t, dir, "services.config", fmt.Sprintf(`
services { name: "greeter" factory: "NOOP" }
services < name: "GRR" factory: "GRPC" max_parallelism: 7
  config: < [type.googleapis.com/fleetspeak.grpcservice.Config]: < target: "localhost:1" insecure: true > > >
services { name: "FRR" factory: "GRPC" config { [x/fleetspeak.grpcservice.Config] { target: "b:2" cert_file: %q } } }
services { name: "greeter" factory: "NOOP" max_parallelism: 4294967295 config { [x/fleetspeak.cpsservice.Config] {} } }
broadcast_poll_time { seconds: 5 }
`, roots))
	s, err := config.LoadServices(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, svc := range s.Services {
		line := fmt.Sprintf("%s %s %d", svc.Name, svc.Factory, svc.MaxParallelism)
		if g := svc.GRPC; g != nil {
			line += fmt.Sprintf(" %s insecure=%v roots=%v", g.Target, g.Insecure, g.Roots != nil)
		}
		got = append(got, line)
	}
	want := "GRR GRPC 7 localhost:1 insecure=true roots=false\nFRR GRPC 100 b:2 insecure=false roots=true\ngreeter NOOP 2147483647"
	if strings.Join(got, "\n") != want {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), want)
	}
	if s.BroadcastPollTime != 5*time.Second {
		t.Errorf("BroadcastPollTime = %v", s.BroadcastPollTime)
	}
	wantWarning := path + `:6:12: warning: services[3].name: replaces an earlier service named "greeter"; remove one of the two`
	if s.Warnings.Error() != wantWarning {
		t.Errorf("warnings: %v", s.Warnings)
	}
}

func TestServicesFileMayBeEmpty(t *testing.T) {
	for _, text := range []string{"", "# only comments\n# services { name: 'x' }\n"} {
		s, err := config.LoadServices(write(t, t.TempDir(), "services.config", text))
		if err != nil || len(s.Services) != 0 || s.BroadcastPollTime != time.Minute || len(s.Warnings) != 0 {
			t.Errorf("%q: %+v, %v", text, s, err)
		}
	}
}

func TestBrokenServices(t *testing.T) {
	dir := t.TempDir()
	junk := write(t, dir, "junk.pem", "junk")
	const sample = `config { [type.googleapis.com/fleetspeak.grpcservice.Config] { target: "host:port" ... } }`
	grpc := func(config string) string { return "services { name: 'a' factory: 'GRPC'\n" + config + " }" }
	tests := []struct{ name, text, want string }{
		{"no name", "services { factory: 'NOOP' }", `1:1: services[0].name: absent; name the service as its messages do`},
		{"reserved name", "services {\nname: 'system' factory: 'NOOP' }", `2:1: services[0].name: "system" is reserved; choose another name`},
		{"reserved name", "services {\nname: 'client' factory: 'NOOP' }", `2:1: services[0].name: "client" is reserved; choose another name`},
		{"no factory", "services { name: 'a' }", `1:1: services[0].factory: absent; write NOOP or GRPC, in quotes`},
		{"mistyped factory", "services { name: 'a' factory: 'grpc' }", `1:22: services[0].factory: unknown factory "grpc"; did you mean GRPC?`},
		{"CPS", "services { name: 'a'\nfactory: 'CPS' }", "2:1: services[0].factory: CPS (Cloud Pub/Sub) is not built in; " +
			"use GRPC with a backend that publishes, or NOOP to discard the messages"},
		{"no config", grpc(""), "1:1: services[0].config: absent; write " + sample},
		{"empty config", grpc("config {}"), "2:1: services[0].config: absent; write " + sample},
		{"config of another type", grpc("config { [a/fleetspeak.cpsservice.Config] {} }"),
			"2:1: services[0].config: is a fleetspeak.cpsservice.Config; the factory GRPC takes a fleetspeak.grpcservice.Config"},
		{"the misspelling of the original's sample", grpc("config { [type.googleapis.com/fleetspeak.grpcservce.Config] {} }"),
			"2:1: services[0].config: unknown type fleetspeak.grpcservce.Config; check the spelling between the brackets, such as [type.googleapis.com/fleetspeak.grpcservice.Config]"},
		{"no target", grpc("config { [a/fleetspeak.grpcservice.Config] {\ninsecure: true } }"),
			`2:1: services[0].config.target: absent; write where the backend listens, for example "localhost:6063"`},
		{"neither insecure nor cert_file", grpc("config { [a/fleetspeak.grpcservice.Config] {\ntarget: 'a' } }"),
			"2:1: services[0].config.cert_file: absent; name a PEM file with the roots to trust, or write insecure: true for plaintext"},
		{"no roots", grpc("config { [a/fleetspeak.grpcservice.Config] { target: 'a'\ncert_file: '" + junk + "' } }"),
			"3:1: services[0].config.cert_file: " + junk + " holds no PEM certificate; give the certificates of the authorities to trust"},
		{"unreadable roots", grpc("config { [a/fleetspeak.grpcservice.Config] { target: 'a'\ncert_file: '/none' } }"),
			"3:1: services[0].config.cert_file: cannot read /none: no such file or directory; check the path"},
		{"insecure wins, yet", grpc("config { [a/fleetspeak.grpcservice.Config] { target: 'a' insecure: true\ncert_file: '/none' } }"),
			"3:1: warning: services[0].config.cert_file: without effect, since insecure is true; remove one of the two"},
		{"damaged value", grpc("config { type_url: 'a/fleetspeak.grpcservice.Config'\nvalue: '\\377' }"),
			"3:1: services[0].config.value: is not a serialized fleetspeak.grpcservice.Config; write config { [type.googleapis.com/fleetspeak.grpcservice.Config] { ... } }"},
		{"short poll time", "broadcast_poll_time { nanos: 1 }",
			`1:1: warning: broadcast_poll_time: 1ns is out of range, 100ms is used; write from 100ms to 24h0m0s, or leave it out for 1m0s`},
		{"long poll time", "broadcast_poll_time { seconds: 86401 }",
			`1:1: warning: broadcast_poll_time: 24h0m1s is out of range, 24h0m0s is used; write from 100ms to 24h0m0s, or leave it out for 1m0s`},
		{"poll time", "broadcast_poll_time { seconds: -5 }",
			`1:1: broadcast_poll_time: not a positive duration; write { seconds: N }, or leave it out for 1m0s`},
		{"unknown field", "services { nam: 'a' factory: 'NOOP' }", `1:12: services[0].nam: unknown field; did you mean name?`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, dir, "services.config", tt.text)
			s, err := config.LoadServices(path)
			got := ""
			if err == nil {
				got = s.Warnings.Error()
			} else {
				got = err.Error()
			}
			if strings.ReplaceAll(got, path+":", "") != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}
