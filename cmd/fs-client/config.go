package main

import (
	"github.com/golang/glog"

	"github.com/farspeak/farspeak/internal/agent"
	"github.com/farspeak/farspeak/internal/agent/service"
	"github.com/farspeak/farspeak/internal/agent/spool"
	"github.com/farspeak/farspeak/internal/config/agentconfig"
	"github.com/farspeak/farspeak/internal/daemon/run"
	settingspb "github.com/farspeak/farspeak/proto/farspeak/settings"
)

// newAgent makes an agent of the files. stalled is told which kind of communicator hangs.
func newAgent(o *options, stalled func(kind string)) (*agent.Agent, error) {
	file, err := agentconfig.Client(o.config)
	if err != nil {
		return nil, err
	}
	for _, warning := range file.Warnings {
		glog.Warning(warning)
	}
	if err := file.PrepareRegistry(); err != nil {
		return nil, err
	}
	cfg := agentConfig(o, file)
	kind := "polling"
	if file.Streaming {
		kind = "streaming"
	}
	cfg.Stalled = func() { stalled(kind) }
	if o.stdForward {
		cfg.Factories["Daemon"] = service.NewAttachedDaemon
	}
	return agent.New(cfg)
}

// agentConfig maps the files onto the agent's configuration.
func agentConfig(o *options, file *agentconfig.Config) agent.Config {
	communicator, err := file.Communicator()
	if err != nil {
		glog.Warningf("%v; the defaults are used", err)
	}
	cfg := agent.Config{
		Link:         linkConfig(file, communicator),
		Labels:       file.Labels,
		State:        stateStore(file),
		Spool:        spoolConfig(file.Settings),
		StatusSocket: statusSocket(file),
		Services:     installations(file),
		Factories:    service.Standard(),
	}
	if key := file.Settings.DeploymentKey; key != nil {
		cfg.Deployer = &deployer{key: key, shelf: shelfOf(o, file)}
	}
	return cfg
}

// stateStore is where the identity is kept.
func stateStore(file *agentconfig.Config) agent.StateStore {
	if file.RegistryKey != "" {
		return agent.RegistryState(file.Registry, file.RegistryKey)
	}
	return agent.FileState(file.StateFile)
}

func spoolConfig(s agentconfig.Settings) spool.Config {
	policies := map[settingspb.SpoolFsync]spool.Sync{
		settingspb.SpoolFsync_SPOOL_FSYNC_INTERVAL: spool.SyncInterval,
		settingspb.SpoolFsync_SPOOL_FSYNC_NEVER:    spool.SyncNever,
	}
	return spool.Config{
		Dir:      s.SpoolDirectory,
		MaxBytes: int64(s.SpoolMaxBytes),
		Sync:     policies[s.SpoolFsync], // spool.SyncAlways for the others
		Interval: s.SpoolFsyncInterval,
	}
}

func linkConfig(file *agentconfig.Config, c agentconfig.Communicator) agent.LinkConfig {
	return agent.LinkConfig{
		DialConfig: agent.DialConfig{
			Roots:             file.TrustedCerts,
			ServerName:        file.ServerName,
			Proxy:             file.Proxy,
			CertificateHeader: file.CertificateHeader,
			PreferHTTP2:       c.PreferHTTP2,
		},
		Version:         run.ReadBuild().Version,
		Servers:         file.Servers,
		Streaming:       file.Streaming,
		Deflate:         c.Compress,
		MaxPollDelay:    c.MaxPollDelay,
		MaxBufferDelay:  c.MaxBufferDelay,
		MaxFailureDelay: c.MinFailureDelay,
		LonelyLimit:     c.FailureSuicideTime,
	}
}

// installations reads the configured services. What cannot be used is left out with a warning.
func installations(file *agentconfig.Config) []agent.Installation {
	services, problems := file.Services()
	for _, problem := range problems {
		glog.Warning(problem)
	}
	var out []agent.Installation
	for _, s := range services {
		out = append(out, agent.Installation{Config: s.Config, Signature: s.Signature, Origin: s.Path})
	}
	return out
}
