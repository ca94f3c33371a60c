package cli_test

import (
	"context"
	"strings"
	"testing"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/cli"
)

// TestUsageErrors are mistakes that need no daemon to be found.
func TestUsageErrors(t *testing.T) {
	messageID := strings.Repeat("0a", 32)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"nothing":               {nil, "needs a subcommand"},
		"group":                 {[]string{"client"}, "fsctl client needs a subcommand"},
		"unknown command":       {[]string{"clients"}, `unknown command "clients"`},
		"unknown subcommand":    {[]string{"client", "lst"}, `unknown command "lst"`},
		"unknown flag":          {[]string{"client", "list", "--al"}, "unknown flag"},
		"no ID":                 {[]string{"client", "show"}, "accepts 1 arg"},
		"bad ID":                {[]string{"client", "show", "xyz"}, "16 hex digits"},
		"nil ID":                {[]string{"client", "show", "nil"}, "names no client"},
		"bad message ID":        {[]string{"message", "status", "00"}, "64 hex digits"},
		"bad output":            {[]string{"client", "list", "-o", "xml"}, "want table or json"},
		"bad timeout":           {[]string{"client", "list", "--timeout", "0s"}, "--timeout"},
		"two addresses":         {[]string{"client", "list", "--admin", "a:1", "--components_config", "f"}, "admin components_config"},
		"no service":            {[]string{"message", "send", linuxID}, `"service" not set`},
		"two payloads":          {[]string{"message", "send", linuxID, "--service", "S", "--json", "{}", "--data_file", "f"}, "data_file json"},
		"bytes without type":    {[]string{"message", "send", linuxID, "--service", "S", "--data_file", "/dev/null"}, "type URL is needed"},
		"unknown JSON type":     {[]string{"message", "send", linuxID, "--service", "S", "--type_url", "x.Y", "--json", "{}"}, "not known here"},
		"stdin twice":           {[]string{"message", "send", "-", "--service", "S", "--stdin_input", "-"}, "cannot both come from standard input"},
		"bad annotation":        {[]string{"message", "send", linuxID, "--service", "S", "--annotation", "x"}, "KEY=VALUE"},
		"one ID for two":        {[]string{"message", "send", linuxID, windowsID, "--service", "S", "--message_id", messageID}, "one client"},
		"install of nothing":    {[]string{"client", "install", linuxID}, "config signed_config"},
		"install without key":   {[]string{"client", "install", linuxID, "--config", "f"}, "key"},
		"two installs":          {[]string{"client", "install", linuxID, "--config", "f", "--key", "k", "--signed_config", "s"}, "config signed_config"},
		"remove of the agent":   {[]string{"client", "remove", linuxID, "system"}, `"system" is no service`},
		"restart of nothing":    {[]string{"client", "restart", linuxID}, "accepts 2 arg"},
		"no limit":              {[]string{"broadcast", "create", "--service", "S"}, `"limit" not set`},
		"config without file":   {[]string{"config", "generate"}, `"config" not set`},
		"check of nothing":      {[]string{"config", "check"}, "components_config client_config"},
		"services alone":        {[]string{"config", "check", "--client_config", "f", "--services_config", "f"}, "needs --components_config"},
		"migrate without file":  {[]string{"migrate"}, `"components_config" not set`},
		"words after the flags": {[]string{"server", "list", "x"}, "unknown command"},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, "", c.args...)
			r.wantError(t, 2, c.want, `--help" for usage.`)
			if r.out != "" {
				t.Errorf("output %q, want none", r.out)
			}
		})
	}
}

// TestHelp walks through all commands: each explains itself and shows an example.
func TestHelp(t *testing.T) {
	help := run(t, "", "--help")
	help.want(t, 0, "Available Commands")
	var commands [][]string
	for _, group := range subcommands(help.out) {
		if group == "completion" || group == "help" {
			continue
		}
		out := run(t, "", group, "--help").out
		names := subcommands(out)
		if len(names) == 0 {
			commands = append(commands, []string{group})
		}
		for _, name := range names {
			commands = append(commands, []string{group, name})
		}
	}
	if len(commands) < 20 {
		t.Fatalf("found only %q", commands)
	}
	for _, words := range commands {
		out := run(t, "", append(words, "--help")...).out
		if !strings.Contains(out, "Examples:\n  fsctl "+strings.Join(words, " ")) && !strings.Contains(out, "| fsctl "+strings.Join(words, " ")) {
			t.Errorf("help of %q has no example of it:\n%s", words, out)
		}
	}
}

// subcommands reads the names below "Available Commands:".
func subcommands(help string) []string {
	_, rest, found := strings.Cut(help, "Available Commands:\n")
	if !found {
		return nil
	}
	block, _, _ := strings.Cut(rest, "\n\n")
	var names []string
	for line := range strings.Lines(block) {
		if words := strings.Fields(line); len(words) > 0 {
			names = append(names, words[0])
		}
	}
	return names
}

func TestVersion(t *testing.T) {
	run(t, "", "--version").want(t, 0, "fsctl version test")
}

func TestShellCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		run(t, "", "completion", shell).want(t, 0, "fsctl")
	}
}

func TestInterrupted(t *testing.T) {
	f := newFake(t)
	f.silent = true
	address := f.serve(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errout strings.Builder
	code := cli.Run(ctx, "test", []string{"client", "list", "--admin", address}, cli.Streams{In: strings.NewReader(""), Out: &out, Err: &errout})
	if code != 1 || !strings.Contains(errout.String(), "interrupted") {
		t.Errorf("exit code %d with %q, want 1 and why", code, errout.String())
	}
}
