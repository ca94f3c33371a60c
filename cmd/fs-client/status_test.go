package main

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/agent"
	"github.com/farspeak/farspeak/internal/agent/service"
)

// running starts an agent that finds no server, and waits until it tells its status.
func running(t *testing.T) (site, *agent.Status) {
	t.Helper()
	s := newSite(t, "127.0.0.1:1")
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() { done <- serveOnce(ctx, newProcess(&options{config: s.config, profileDir: t.TempDir()})) }() // waited for below
	t.Cleanup(func() {
		stop()
		<-done
		if _, err := os.Lstat(s.state + ".status"); err == nil {
			t.Error("the socket stays behind")
		}
	})
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(10 * time.Millisecond) {
		if status, err := agent.AskStatus(ctx, s.state+".status"); err == nil && len(status.Services) == 2 && status.Link.LastError != "" {
			return s, status
		}
		if time.Now().After(deadline) {
			t.Fatal("the agent tells no status")
		}
	}
}

func TestStatusOfARunningAgent(t *testing.T) {
	s, status := running(t)
	if status.PID != os.Getpid() || len(status.ClientID) != 16 || status.Outbox.Spool == nil || len(status.Outbox.Classes) != 3 {
		t.Errorf("status is %+v", status)
	}
	st, err := os.Stat(s.state + ".status")
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket is %v, %v", st, err)
	}
	var text strings.Builder
	if err := showStatus(t.Context(), &text, &options{config: s.config, output: outputJSON}); err != nil {
		t.Fatal(err)
	}
	var decoded map[string]any
	if err := json.Unmarshal([]byte(text.String()), &decoded); err != nil || decoded["client_id"] != status.ClientID {
		t.Errorf("JSON is %s, %v", text.String(), err)
	}
	text.Reset()
	if err := showStatus(t.Context(), &text, &options{config: s.config, output: outputTable}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{status.ClientID, "no contact so far", "sink", "NOOP", "state.spool: 0 messages", "MEDIUM"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("table has no %q:\n%s", want, text.String())
		}
	}
}

func TestStatusWithoutAnAgent(t *testing.T) {
	s := newSite(t, "127.0.0.1:1")
	for _, o := range []*options{{config: s.config, output: outputTable}, {config: s.config, output: "xml"}, {config: "/none", output: outputJSON}} {
		if err := showStatus(t.Context(), &strings.Builder{}, o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

func TestStatusTable(t *testing.T) {
	now := time.Now()
	var text strings.Builder
	err := writeStatus(&text, &agent.Status{
		Link:   agent.LinkStatus{Server: "a:1", Since: now.Add(-time.Hour), LastError: "no route", LastErrorAt: now.Add(-time.Minute)},
		Outbox: agent.OutboxStatus{Spool: &agent.SpoolStatus{Directory: "d", Error: "disk full"}},
		Services: []agent.ServiceStatus{
			{Name: "s", LastError: "two\nlines", LastErrorTime: now, Process: service.State{PID: 7, Version: "1.0", Since: now}},
			{Name: "u", Process: service.State{Starts: 1}},
		},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"a:1, session for 1h0m0s", "1m0s ago: no route", "not working: disk full", "process 7 for 0s 1.0", `0s ago: "two\nlines"`, "no process"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("table has no %q:\n%s", want, text.String())
		}
	}
}
