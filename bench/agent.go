package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	genericpb "github.com/farspeak/farspeak/proto/fleetspeak/client/generic"
	daemonpb "github.com/farspeak/farspeak/proto/fleetspeak/daemonservice"
	"github.com/farspeak/farspeak/sdk/service"
)

// What part agent leaves alone and looks at.
const (
	agentServices = 3
	// agentSettle is until a new process is no longer looked at more often than once a minute.
	agentSettle = 70 * time.Second
	// agentWatch is how long the agent is looked at, at least.
	agentWatch = 5 * time.Minute
)

// serviceFlag makes this program a service that does nothing.
const serviceFlag = "-agent_service"

// runService is a Daemon service that waits for messages.
func runService(ctx context.Context) error {
	daemon, err := service.OpenDaemon(ctx, service.DaemonConfig{Version: "bench"})
	if err != nil {
		return err
	}
	err = service.Serve(ctx, daemon, func(context.Context, *fspb.Message) (*fspb.Message, error) { return nil, nil })
	return errors.Join(err, daemon.Close())
}

// agentFootprint measures an agent that has a session and nothing to do.
func (b *bench) agentFootprint(ctx context.Context) (err error) {
	if err := b.fresh(ctx, 1); err != nil {
		return err
	}
	p, err := b.site.startAgent(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	pause(ctx, agentSettle)
	watched, err := watch(ctx, p.pid(), max(agentWatch, b.hold))
	if err != nil {
		return b.site.withLog("fs-client", err)
	}
	b.footprintFigures(watched)
	return nil
}

func (b *bench) footprintFigures(f footprint) {
	const part, mib = "agent", 1 << 20
	b.add(part, "resident memory, the most", float64(f.resident)/mib, "MiB", atMost(20))
	b.add(part, "of it not of the program's file", float64(f.anonymous)/mib, "MiB")
	b.add(part, "proportional share of memory", float64(f.proportional)/mib, "MiB")
	b.add(part, "CPU, of a core", 100*f.cpu.Seconds()/f.took.Seconds(), "%", atMost(0.1))
	b.add(part, "wake-ups a minute", float64(len(f.wakeUps))/f.took.Minutes(), "", atMost(1))
	if gap := f.shortestGap(); gap > 0 {
		b.add(part, "shortest time between two", gap.Seconds(), "s", atLeast(59))
	}
	b.add(part, "context switches a minute", float64(f.switches)/f.took.Minutes(), "")
	b.add(part, "threads", float64(f.threads), "")
}

// startAgent runs an fs-client with its services, and waits until it has a session and all of them run.
func (s *site) startAgent(ctx context.Context) (*process, error) {
	path, err := s.agentFiles()
	if err != nil {
		return nil, err
	}
	p, err := start(s.dir, "fs-client", s.program("fs-client"), "--logtostderr", "--config", path)
	if err != nil {
		return nil, err
	}
	if err := p.until(ctx, func(ctx context.Context) error { return s.agentWorks(ctx, path) }); err != nil {
		p.kill()
		return nil, s.withLog("fs-client", err)
	}
	return p, nil
}

// agentFiles writes what an fs-client is configured with.
func (s *site) agentFiles() (string, error) {
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	config, err := anypb.New(&daemonpb.Config{Argv: []string{program, serviceFlag}})
	if err != nil {
		return "", err
	}
	for _, dir := range []string{"services", "textservices"} {
		if err := os.MkdirAll(filepath.Join(s.dir, "agent", dir), 0o700); err != nil {
			return "", err
		}
	}
	for i := range agentServices {
		name := fmt.Sprintf("idle%d", i+1)
		file := filepath.Join("agent", "textservices", name+".service")
		if _, err := s.write(file, &fspb.ClientServiceConfig{Name: name, Factory: "Daemon", Config: config}); err != nil {
			return "", err
		}
	}
	dir := filepath.Join(s.dir, "agent")
	return s.write(filepath.Join("agent", "client.config"), &genericpb.Config{
		TrustedCerts: s.certificates.certificate, Server: []string{s.servers[0].clients}, Streaming: true,
		PersistenceHandler: &genericpb.Config_FilesystemHandler{FilesystemHandler: &genericpb.FilesystemHandler{
			ConfigurationDirectory: dir, StateFile: filepath.Join(dir, "state"),
		}},
	})
}

// agentStatus is what is looked at of an agent's status, whose names stay.
type agentStatus struct {
	Link struct {
		Server string `json:"server"`
	} `json:"link"`
	Services []struct {
		Process struct {
			PID int `json:"pid"`
		} `json:"process"`
	} `json:"services"`
}

// agentWorks asks the agent how it is.
func (s *site) agentWorks(ctx context.Context, config string) error {
	command := exec.CommandContext(ctx, s.program("fs-client"), "--status", "--output", "json", "--config", config)
	var failure bytes.Buffer
	command.Stderr = &failure
	out, err := command.Output()
	if err != nil {
		return fmt.Errorf("fs-client --status: %w: %s", err, failure.Bytes())
	}
	var status agentStatus
	if err := json.Unmarshal(out, &status); err != nil {
		return err
	}
	running := 0
	for _, v := range status.Services {
		if v.Process.PID != 0 {
			running++
		}
	}
	if status.Link.Server == "" || running < agentServices {
		return fmt.Errorf("server %q, %d of %d services run", status.Link.Server, running, agentServices)
	}
	return nil
}
