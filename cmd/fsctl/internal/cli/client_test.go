package cli_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

func parseHex(text string) ([]byte, error) { return hex.DecodeString(text) }

// decode reads the JSON output of a command.
func decode[T any](t *testing.T, r result) T {
	t.Helper()
	var value T
	if err := json.Unmarshal([]byte(r.out), &value); err != nil {
		t.Fatalf("%v in output %q", err, r.out)
	}
	return value
}

func TestClientList(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"all":             {nil, []string{linuxID, windowsID}},
		"given":           {[]string{windowsID, unknownID}, []string{windowsID}},
		"label":           {[]string{"--label", "linux"}, []string{linuxID}},
		"both labels":     {[]string{"--label", "linux", "--label", "grr:lab"}, []string{linuxID}},
		"missing label":   {[]string{"--label", "linux", "--label", "lab"}, nil},
		"recent":          {[]string{"--seen_within", "1h"}, []string{linuxID}},
		"recent of given": {[]string{"--seen_within", "1h", windowsID}, nil},
		"not blacklisted": {[]string{"--exclude_blacklisted"}, []string{linuxID}},
		"dashes in flags": {[]string{"--exclude-blacklisted"}, []string{linuxID}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newFake(t).fsctl(t, append([]string{"client", "list", "-o", "json"}, c.args...)...)
			r.want(t, 0)
			var got []string
			for _, row := range decode[[]map[string]any](t, r) {
				got = append(got, row["client_id"].(string))
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("clients %q, want %q", got, c.want)
			}
		})
	}
}

// TestClientListJSON holds the names of the fields, which programs read.
func TestClientListJSON(t *testing.T) {
	r := newFake(t).fsctl(t, "client", "list", "-o", "json", linuxID)
	row := decode[[]map[string]any](t, r)[0]
	for _, name := range []string{"client_id", "labels", "last_contact_time", "last_contact_address", "last_contact_streaming_to", "last_clock", "blacklisted"} {
		if _, ok := row[name]; !ok {
			t.Errorf("no field %s in %v", name, row)
		}
	}
	if got, want := fmt.Sprint(row["labels"]), "[map[label:linux service_name:client] map[label:lab service_name:grr]]"; got != want {
		t.Errorf("labels %s, want %s", got, want)
	}
}

func TestClientListTable(t *testing.T) {
	r := newFake(t).fsctl(t, "client", "list")
	r.want(t, 0, "CLIENT_ID", linuxID, "192.0.2.1:1234", "server-1:8080", "linux,grr:lab", windowsID, "true")
}

// TestLongList is longer than what one call asks for and what one part of a table holds.
func TestLongList(t *testing.T) {
	f := newFake(t)
	for i := range 1200 {
		clientID := id(t, fmt.Sprintf("%016x", 1<<20+i))
		f.addClient(&serverpb.Client{ClientId: clientID, LastContactTime: timestamppb.Now()})
	}
	r := f.fsctl(t, "client", "list")
	r.want(t, 0, fmt.Sprintf("%016x", 1<<20), fmt.Sprintf("%016x", 1<<20+1199))
	if lines := strings.Count(r.out, "\n"); lines != 1203 {
		t.Errorf("%d lines, want a head and 1202 clients", lines)
	}
}

func TestSilentStreamEnds(t *testing.T) {
	f := newFake(t)
	f.silent = true
	r := f.fsctl(t, "client", "list", "--timeout", "50ms")
	r.wantError(t, 1, "did not answer within 50ms", "--timeout")
}

func TestClientShow(t *testing.T) {
	r := newFake(t).fsctl(t, "client", "show", strings.ToUpper(linuxID))
	r.want(t, 0, linuxID, "Shell", "linux,grr:lab", "Pending messages:  10")
	r = newFake(t).fsctl(t, "client", "show", linuxID, "-o", "json")
	r.want(t, 0)
	row := decode[map[string]any](t, r)
	if row["client_id"] != linuxID || row["pending_messages"] != 10.0 || fmt.Sprint(row["services"]) != "[map[name:Shell signature:ab]]" {
		t.Errorf("got %v", row)
	}
}

// TestClientShowOfOriginal asks a daemon that knows nothing of Farspeak's own calls.
func TestClientShowOfOriginal(t *testing.T) {
	f := newFake(t)
	f.noControl = true
	f.fsctl(t, "client", "show", linuxID).want(t, 0, linuxID)
	f.fsctl(t, "client", "services", linuxID).wantError(t, 1, "does not know this call")
}

func TestClientShowUnknown(t *testing.T) {
	newFake(t).fsctl(t, "client", "show", unknownID).wantError(t, 1, unknownID+" is not known", "fsctl client list")
}

func TestClientContacts(t *testing.T) {
	f := newFake(t)
	for i, minutes := range []int{30, 10, 20} {
		f.contacts = append(f.contacts, &serverpb.ClientContact{
			SentNonce: 1<<63 + uint64(i), ObservedAddress: fmt.Sprintf("192.0.2.%d:1", minutes),
			Timestamp: timestamppb.New(time.Now().Add(-time.Duration(minutes) * time.Minute)),
		})
	}
	r := f.fsctl(t, "client", "contacts", linuxID, "--limit", "2", "-o", "json")
	r.want(t, 0)
	rows := decode[[]map[string]any](t, r)
	if len(rows) != 2 || rows[0]["observed_address"] != "192.0.2.10:1" || rows[1]["observed_address"] != "192.0.2.20:1" {
		t.Errorf("contacts %v, want the two newest, newest first", rows)
	}
	if rows[0]["sent_nonce"] != "9223372036854775809" {
		t.Errorf("nonce %v, want all its digits", rows[0]["sent_nonce"])
	}
}

func TestClientServices(t *testing.T) {
	newFake(t).fsctl(t, "client", "services", linuxID).want(t, 0, "Shell", "ab")
}

func TestClientBlacklist(t *testing.T) {
	f := newFake(t)
	r := f.fsctl(t, "client", "blacklist", linuxID, unknownID, linuxID)
	r.wantError(t, 1, "1 of 2 failed")
	if !strings.Contains(r.out, linuxID+"  blacklisted") || !strings.Contains(r.out, unknownID+"  failed") {
		t.Errorf("output %q, want one client blacklisted and one unknown", r.out)
	}
	if !f.clients[string(id(t, linuxID))].Blacklisted {
		t.Error("the client is not blacklisted")
	}
}

func TestIDsFromStandardInput(t *testing.T) {
	f := newFake(t)
	address := f.serve(t)
	for name, c := range map[string]struct {
		stdin  string
		code   int
		errout string
	}{
		"table":   {"CLIENT_ID  LAST_CONTACT\n" + linuxID + "  2026-01-01 00:00:00\n\n# comment\n" + windowsID + "\n", 0, ""},
		"garbage": {linuxID + "\nhello\n", 1, "standard input, line 2"},
		"nothing": {"", 1, "no client ID on standard input"},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, c.stdin, "client", "list", "-", "--admin", address)
			r.wantError(t, c.code, c.errout)
			if c.code == 0 {
				r.want(t, 0, linuxID, windowsID)
			}
		})
	}
}

func TestCompletion(t *testing.T) {
	f := newFake(t)
	address := f.serve(t)
	r := run(t, "", "__complete", "client", "show", "--admin", address, "00000000000000A")
	r.want(t, 0, linuxID+"\n")
	if strings.Contains(r.out, windowsID) {
		t.Errorf("completions %q offer what does not begin with the typed word", r.out)
	}
	run(t, "", "__complete", "client", "list", "--output", "").want(t, 0, "table\njson\n")
}

// TestCompletionOfSilentDaemon must not keep anybody waiting.
func TestCompletionOfSilentDaemon(t *testing.T) {
	f := newFake(t)
	f.silent = true
	begin := time.Now()
	run(t, "", "__complete", "client", "show", "--admin", f.serve(t), "").want(t, 0, ":4")
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("completion took %v", took)
	}
}
