package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/farspeak/farspeak/internal/agent"
	"github.com/farspeak/farspeak/internal/agent/service"
	"github.com/farspeak/farspeak/internal/config/agentconfig"
)

// Forms of the status.
const (
	outputTable = "table"
	outputJSON  = "json"
)

// statusSocket is where an agent tells its status; empty: nowhere.
func statusSocket(file *agentconfig.Config) string {
	if file.Settings.StatusDisabled {
		return ""
	}
	if file.StateFile == "" { // the state is in the registry, or nowhere
		return file.Settings.SpoolDirectory + ".status"
	}
	return file.StateFile + ".status"
}

// showStatus asks the running agent.
func showStatus(ctx context.Context, w io.Writer, o *options) error {
	if o.output != outputTable && o.output != outputJSON {
		return fmt.Errorf("--output is %q: write %s or %s", o.output, outputTable, outputJSON)
	}
	file, err := agentconfig.Client(o.config)
	if err != nil {
		return err
	}
	socket := statusSocket(file)
	if socket == "" {
		return errors.New("agents with this configuration tell no status: status_disabled is set, or there is neither state_file nor spool_directory")
	}
	status, err := agent.AskStatus(ctx, socket)
	if err != nil {
		return err
	}
	if o.output == outputJSON {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(status)
	}
	return writeStatus(w, status, time.Now())
}

// writeStatus writes the status for people.
func writeStatus(w io.Writer, s *agent.Status, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(cells ...string) {
		fmt.Fprintln(t, strings.Join(cells, "\t")) // the writer keeps the error for Flush
	}
	row("client", s.ClientID)
	row("labels", strings.Join(s.Labels, ", "))
	row("agent", fmt.Sprintf("%s, process %d, running for %s", s.Version, s.PID, age(s.Started, now)))
	row("server", server(s.Link, now))
	if s.Link.LastError != "" {
		row("last error", fmt.Sprintf("%s ago: %s", age(s.Link.LastErrorAt, now), s.Link.LastError))
	}
	row("outbox", fmt.Sprintf("%d messages, %d bytes, %d set aside", s.Outbox.Messages, s.Outbox.Bytes, s.Outbox.SetAside))
	row("spool", spoolLine(s.Outbox.Spool))
	row()
	row("PRIORITY", "MESSAGES", "BYTES", "DROPPED")
	for _, c := range s.Outbox.Classes {
		row(c.Priority, fmt.Sprint(c.Messages), fmt.Sprint(c.Bytes), fmt.Sprint(c.Dropped))
	}
	row()
	row("SERVICE", "KIND", "STATE", "PROCESSED", "QUEUED", "RESTARTS", "LAST ERROR")
	for _, v := range s.Services {
		row(v.Name, v.Factory, state(v, now), fmt.Sprint(v.Processed), fmt.Sprint(v.Queued), fmt.Sprint(v.Restarts), lastError(v, now))
	}
	return t.Flush()
}

func server(l agent.LinkStatus, now time.Time) string {
	switch {
	case l.Server != "":
		return fmt.Sprintf("%s, session for %s", l.Server, age(l.Since, now))
	case l.LastContact.IsZero():
		return "no contact so far"
	}
	return fmt.Sprintf("no session, last contact %s ago", age(l.LastContact, now))
}

func spoolLine(s *agent.SpoolStatus) string {
	if s == nil {
		return "none"
	}
	line := fmt.Sprintf("%s: %d messages, %d of %d bytes", s.Directory, s.Messages, s.Bytes, s.MaxBytes)
	if s.Error != "" {
		line += ", not working: " + s.Error
	}
	return line
}

func state(v agent.ServiceStatus, now time.Time) string {
	switch p := v.Process; {
	case p == (service.State{}):
		return "ready for " + age(v.Started, now)
	case p.Since.IsZero():
		return "no process"
	default:
		return strings.TrimSpace(fmt.Sprintf("process %d for %s %s", p.PID, age(p.Since, now), p.Version))
	}
}

// lastError is on one line.
func lastError(v agent.ServiceStatus, now time.Time) string {
	if v.LastError == "" {
		return "-"
	}
	return fmt.Sprintf("%s ago: %q", age(v.LastErrorTime, now), v.LastError)
}

// age is how long ago a time was.
func age(t, now time.Time) string { return max(0, now.Sub(t)).Round(time.Second).String() }
