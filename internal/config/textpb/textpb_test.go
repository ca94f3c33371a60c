package textpb_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/farspeak/farspeak/internal/config/textpb"
	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
	_ "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

func parse(t *testing.T, text string, m proto.Message) (*textpb.Document, textpb.Problems) {
	t.Helper()
	d := textpb.Parse("f", []byte(text), m)
	return d, d.Faults()
}

func TestBothBracketStylesAreRead(t *testing.T) {
	for _, text := range []string{
		`https_config { listen_address: ":443" } notification_use_http_notifier: true`,
		`https_config < listen_address: ":443" > notification_use_http_notifier: t`,
		`https_config: { listen_address: ":" '443', }; notification_use_http_notifier: 1 # yes`,
		"https_config:<listen_address:\":443\";>,notification_use_http_notifier:True",
	} {
		var got componentspb.Config
		if _, faults := parse(t, text, &got); len(faults) > 0 {
			t.Errorf("%s: %v", text, faults)
		}
		if got.GetHttpsConfig().GetListenAddress() != ":443" || !got.GetNotificationUseHttpNotifier() {
			t.Errorf("%s: read as %v", text, &got)
		}
	}
}

func TestEmptyFileIsAnEmptyMessage(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "# no line end"} {
		got := componentspb.Config{RequiredLabel: "old"}
		if _, faults := parse(t, text, &got); len(faults) > 0 || got.RequiredLabel != "" {
			t.Errorf("%q: %v, %v", text, faults, &got)
		}
	}
}

// Each case lists everything that is said about the text, so that a fault can neither be missed nor told twice.
func TestFaultsNameLineFieldAndRemedy(t *testing.T) {
	const hint = "known here: mysql_data_source_name, https_config, proxy_protocol, required_label, " +
		"notification_listen_address, notification_public_address, admin_config, stats_config, health_check_config, " +
		"notification_use_http_notifier, spanner_config, sqlite_database_path, farspeak"
	tests := []struct {
		name, text string
		want       []string
	}{
		{"unknown field near a known one", "https_config {\n  listen_adress: \":1\"\n}", []string{
			`f:2:3: https_config.listen_adress: unknown field; did you mean listen_address?`}},
		{"unknown field near none", "\n\nwalrus: 1", []string{"f:3:1: walrus: unknown field; " + hint}},
		{"extension", "[a.b]: 1", []string{"f:1:1: [a.b]: unknown field; " + hint}},
		{"field by number", "4: \"x\"", []string{
			"f:1:1: 4: a field is written by its name, not by its number; " + hint}},
		{"every fault of a file", "proxy_protocol: maybe\nadmin_config < listen_address: 1 >\nsqlite_path: 'x'\n", []string{
			`f:1:1: proxy_protocol: not a possible value; write true or false`,
			`f:2:16: admin_config.listen_address: text has to stand in quotes; write text in quotes, such as "..."`,
			"f:3:1: sqlite_path: unknown field; " + hint}},
		{"singular field twice", "required_label: 'a'\nrequired_label: 'b'", []string{
			"f:2:1: required_label: given a second time, first on line 1; keep one of them"}},
		{"message twice", "admin_config {}\nadmin_config {}", []string{
			"f:2:1: admin_config: given a second time, first on line 1; keep one of them"}},
		{"two of a oneof", "https_config { frontend_config {\nmtls_config {}\ncleartext_xfcc_config {} } }", []string{
			"f:3:1: https_config.frontend_config.cleartext_xfcc_config: excluded by mtls_config, first on line 2; " +
				"keep one of the fields of frontend_mode"}},
		{"no colon", `required_label "x"`, []string{
			"f:1:1: required_label: a colon is missing after the name; write required_label: ..."}},
		{"scalar for a message", `admin_config: ":1"`, []string{
			"f:1:1: admin_config: holds a message, not a single value; write admin_config { ... }"}},
		{"message for a scalar", `required_label {}`, []string{
			"f:1:1: required_label: does not hold a message or list; " + `write text in quotes, such as "..."`}},
		{"text for a bool", `proxy_protocol: "true"`, []string{
			"f:1:1: proxy_protocol: wrong kind of value: text in quotes; write true or false"}},
		{"bad escape", `required_label: "\q"`, []string{
			"f:1:1: required_label: holds a bad escape or bytes that are not UTF-8; " +
				`write text in quotes, such as "..."`}},
		{"range", "farspeak { server { max_sessions: -1 max_push_bytes: 0x100000000 handshake_concurrency: 0x10 } }", []string{
			"f:1:21: farspeak.server.max_sessions: not a possible value; write a whole number from 0 to 4294967295",
			"f:1:38: farspeak.server.max_push_bytes: not a possible value; write a whole number from 0 to 4294967295"}},
		{"element of a list", "farspeak { server {\n permanent_codes: ['OK',\n 5] } }", []string{
			"f:2:2: farspeak.server.permanent_codes[1]: text has to stand in quotes; " +
				`write text in quotes, such as "..."`}},
		{"bracket not closed", "\nadmin_config {\n listen_address: ':1'\n", []string{
			`f:2:14: this bracket is never closed; add the missing '}'`}},
		{"bracket of the other kind", "admin_config { listen_address: ':1' >", []string{
			`f:1:37: a field name should stand here; check the quotes and brackets before this place`}},
		{"list not closed", "farspeak { server { permanent_codes: ['OK'", []string{
			`f:1:38: this list is never closed; add the missing "]"`}},
		{"list without comma", "farspeak { server { permanent_codes: ['OK' 2", []string{
			`f:1:44: list elements are separated by commas; write "," or "]" here`}},
		{"line break in a string", "https_config { key: \"---\nabc\" }", []string{
			`f:1:21: this string does not end on its line; close the quote; inside strings a line break is written \n`}},
		{"string not closed", `required_label: 'x`, []string{"f:1:17: this string never ends; close the quote"}},
		{"no value", `required_label:`, []string{
			"f:1:16: the file ends where a value should stand; add the value"}},
		{"no scalar", `required_label: }`, []string{
			"f:1:17: a value should stand here; write a value, in quotes when it is text"}},
		{"characters, not bytes", "required_label: 'äöü' x: 1", []string{"f:1:23: x: unknown field; " + hint}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m componentspb.Config
			_, faults := parse(t, tt.text, &m)
			got := strings.Split(faults.Error(), "\n")
			if !slices.Equal(got, tt.want) {
				t.Errorf("got:\n%s\nwant:\n%s", faults.Error(), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestDeepNestingIsRefused(t *testing.T) {
	var m componentspb.Config
	_, faults := parse(t, strings.Repeat("a{", 1<<20), &m)
	if len(faults) != 1 || !strings.Contains(faults.Error(), "nested too deeply") {
		t.Errorf("got %v", faults)
	}
}

func TestSoundPartsOfAFaultyFileAreRead(t *testing.T) {
	var m componentspb.Config
	_, faults := parse(t, "walrus: 1\nrequired_label: 'x' proxy_protocol: 7\n", &m)
	if len(faults) != 2 || m.RequiredLabel != "x" {
		t.Errorf("faults %v, message %v", faults, &m)
	}
}

func TestAnyInBothNotations(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"expanded", `services { config { [type.googleapis.com/fleetspeak.grpcservice.Config] { target: "a" } } }`, ""},
		{"expanded with colons", `services: < config: < [x/fleetspeak.grpcservice.Config]: < target: "a" > > >`, ""},
		{"plain fields", `services { config { type_url: "x/y" value: "\n\001a" } }`, ""},
		{"empty", `services { config { } }`, ""},
		{"unknown type", "services {}\nservices { config {\n[a/no.such.Type] {} } }",
			"f:2:12: services[1].config: unknown type no.such.Type; check the spelling"},
		{"unknown field inside", "services { config {\n[a/fleetspeak.grpcservice.Config] { taget: 'a' } } }",
			"f:2:37: services[0].config.taget: unknown field; did you mean target?"},
		{"two contents", "services { config { [a/fleetspeak.grpcservice.Config] {} type_url: 'x' } }",
			"f:1:12: services[0].config: holds more than one thing; keep the first"},
		{"scalar content", "services { config { [a/fleetspeak.grpcservice.Config]: 1 } }",
			"f:1:12: services[0].config: holds a message"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m serverpb.ServerConfig
			_, faults := parse(t, tt.text, &m)
			if got := faults.Error(); !strings.HasPrefix(got, tt.want) || (tt.want == "") != (got == "") {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestReportFindsPlaces(t *testing.T) {
	const text = `services { name: "a" }
services: [{ name: "b" }, {
  name: "c"
  config { [x/fleetspeak.grpcservice.Config] {
    target: "d" } }
}]
`
	var m serverpb.ServerConfig
	d, faults := parse(t, text, &m)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	for field, want := range map[string]string{
		"services[0].name":          "f:1:12",
		"services[1].name":          "f:2:14",
		"services[2].name":          "f:3:3",
		"services[2].config":        "f:4:3",
		"services[2].config.target": "f:5:5",
		"services[2].factory":       "f:2:27", // absent: the message around it
		"services[7].name":          "f:1:1",
		"broadcast_poll_time":       "f:1:1",
	} {
		r := d.NewReport()
		r.Error(field, "m", "r")
		if got := r.Problems()[0].Error(); got != want+": "+field+": m; r" {
			t.Errorf("%s: got %q, want place %s", field, got, want)
		}
	}
	if !d.Has("services[2].config.target") || d.Has("services[2].factory") {
		t.Error("Has is wrong about the fields that are written")
	}
}

func TestRulesBrokenByAFaultAreNotToldAgain(t *testing.T) {
	var m componentspb.Config
	d, _ := parse(t, "https_config { listen_adress: ':1' }\nadmin_config: 5", &m)
	r := d.NewReport()
	r.Error("https_config.listen_address", "absent", "")
	r.Error("admin_config.listen_address", "absent", "")
	r.Error("stats_config.address", "absent", "")
	if got := r.Problems(); len(got) != 1 || got[0].Field != "stats_config.address" {
		t.Errorf("got %v", got)
	}
}

func TestWarningsDoNotFailAFile(t *testing.T) {
	var m componentspb.Config
	d, _ := parse(t, "", &m)
	r := d.NewReport()
	r.Warn("admin_config", "unwise", "")
	if r.Failed() || r.Problems().Err() != nil || len(r.Problems().Warnings()) != 1 {
		t.Errorf("got %v", r.Problems())
	}
	r.Error("admin_config", "wrong", "")
	if err := r.Problems().Err(); !r.Failed() || err == nil || strings.Contains(err.Error(), "unwise") {
		t.Errorf("got %v", err)
	}
}

func TestMessagesHoldNoValues(t *testing.T) {
	for _, text := range []string{
		"https_config { key: topsecret }", "mysql_data_source_name: 'root:topsecret", "required_label: 'topsecret\n'",
		"required_label: \"topsecret\\q\"", "proxy_protocol: topsecret", "admin_config: topsecret",
		"https_config { key: 'topsecret' 'x' topsecret: }", "mysql_data_source_name topsecret",
	} {
		var m componentspb.Config
		_, faults := parse(t, text, &m)
		if len(faults) == 0 {
			t.Errorf("%s: no fault found", text)
		}
		if strings.Contains(faults.Error(), "topsecret") && !strings.Contains(text, "topsecret:") {
			t.Errorf("%s: %v", text, faults)
		}
	}
}

func TestParseLenientPassesOverUnknownNamesOnly(t *testing.T) {
	var m componentspb.Config
	if err := textpb.ParseLenient("f", []byte("walrus { a: 1 b: [2, <>] } required_label: 'x'"), &m); err != nil || m.RequiredLabel != "x" {
		t.Errorf("got %v, %v", err, &m)
	}
	for _, text := range []string{"proxy_protocol: 7", "required_label: 'a'\nrequired_label: 'b'", "walrus {"} {
		err := textpb.ParseLenient("f", []byte(text), &m)
		if _, ok := errors.AsType[textpb.Problem](err); !ok {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, make([]byte, textpb.MaxFileBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "cannot be read: no such file or directory; create it or name another path",
		dir:                        "cannot be read: is a directory",
		big:                        "larger than 4194304 bytes; check that this is the right file",
	} {
		_, err := textpb.ReadFile(path)
		if p, ok := errors.AsType[textpb.Problem](err); !ok || p.Error() != path+": "+want {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"GRPC", "NOOP", "CPS"}
	for name, want := range map[string]string{"grpc": "GRPC", "GRCP": "GRPC", "NOP": "NOOP", "elephant": "", "": ""} {
		if got := textpb.Nearest(name, known); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

// FuzzParse holds the promise that a file is accepted exactly when the protobuf library accepts it.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`services { name: "a" factory: 'NOOP' max_parallelism: 0x10 } broadcast_poll_time { seconds: - 6 }`,
		`services: [<name:"a";>, {config < [type.googleapis.com/fleetspeak.grpcservice.Config] { insecure: true } >}]`,
		"# c\nservices { config { [ type.googleapis.com / # c\n fleetspeak.grpcservice.Config ]: { } } }",
		`services { name: "a" "b"'c' nme: 1 } 5: 3`, `services { name: "\x41\u0042" } services { config { value: "\377" } }`,
		`broadcast_poll_time: { seconds: 1 nanos: 1.5e+3 }`, `services {`, `services { name: "a}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var got, want serverpb.ServerConfig
		faults := textpb.Parse("f", []byte(text), &got).Faults()
		err := prototext.Unmarshal([]byte(text), &want)
		if (err == nil) != (len(faults) == 0) {
			t.Fatalf("library says %v, faults are %v", err, faults)
		}
		if err == nil && !proto.Equal(&got, &want) {
			t.Fatalf("read as %v, library reads %v", &got, &want)
		}
	})
}
