package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/farspeak/farspeak/internal/config"
	"github.com/farspeak/farspeak/internal/config/agentconfig"
	"github.com/farspeak/farspeak/internal/config/textpb"
	"github.com/farspeak/farspeak/internal/configurator"
	configpb "github.com/farspeak/farspeak/proto/fleetspeak/config"
)

func (a *app) configCommand() *cobra.Command {
	return a.newGroup("config", "Make and check configuration files", a.configGenerateCommand(), a.configCheckCommand())
}

// generateFlags are those of "config generate".
type generateFlags struct {
	config string
	quiet  bool
	leaf   bool
}

func (a *app) configGenerateCommand() *cobra.Command {
	var flags generateFlags
	cmd := &cobra.Command{
		Use:   "generate --config FILE",
		Short: "Make keys, certificates and configuration files of an installation",
		Long: `Make the files that a description of an installation asks for: certificate authority, server certificate, components
file and client files. FILE has the format of the original's configurator (fleetspeak.config.Config as text).

Certificates and keys that exist are used as they are; components and client files are written on every run. To renew
the server's certificate, remove its file and run the command again.`,
		Example: `  fsctl config generate --config configurator.config`,
		Args:    cobra.NoArgs,
		RunE: a.action(func(context.Context, []string) error {
			return a.generateConfig(flags)
		}),
	}
	cmd.Flags().StringVar(&flags.config, "config", "", "description of the installation (required)")
	cmd.Flags().BoolVarP(&flags.quiet, "quiet", "q", false, "do not print what was written")
	cmd.Flags().BoolVar(&flags.leaf, "leaf_server_certificate", false,
		"make a server certificate that cannot sign others and that is valid for server_name too")
	required(cmd, "config")
	return cmd
}

// fileReport is a file that "config generate" dealt with.
type fileReport struct {
	Path   string `json:"path"`
	Action string `json:"action"` // written or kept
}

func (a *app) generateConfig(flags generateFlags) error {
	text, err := textpb.ReadFile(flags.config)
	if err != nil {
		return err
	}
	input := &configpb.Config{}
	if err := textpb.Parse(flags.config, text, input).Faults().Err(); err != nil {
		return err
	}
	report, err := configurator.Generate(input, configurator.Options{LeafServerCertificate: flags.leaf})
	for _, w := range report.Warnings {
		fmt.Fprintf(a.Err, "fsctl: warning: %s\n", w)
	}
	if !flags.quiet {
		if err := a.showFiles(report); err != nil {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", flags.config, err)
	}
	return nil
}

func (a *app) showFiles(report *configurator.Report) error {
	list := a.list("ACTION", "FILE")
	for _, group := range []struct {
		action string
		paths  []string
	}{{"kept", report.Kept}, {"written", report.Written}} {
		for _, path := range group.paths {
			if err := list.Add(fileReport{path, group.action}, group.action, path); err != nil {
				return err
			}
		}
	}
	return list.Close()
}

// checkFlags are those of "config check".
type checkFlags struct {
	components, services, client string
}

func (a *app) configCheckCommand() *cobra.Command {
	var flags checkFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check configuration files without starting anything",
		Long: `Check the configuration files of fs-server, fs-admin and fs-client, and all files that they name, without starting
anything. Each problem is printed with file, line, field and remedy.`,
		Example: `  fsctl config check --components_config server.components.config --services_config server.services.config
  fsctl config check --client_config /etc/fleetspeak-client/client.config`,
		Args: cobra.NoArgs,
		RunE: a.action(func(context.Context, []string) error {
			return a.checkConfig(flags)
		}),
	}
	cmd.Flags().StringVar(&flags.components, "components_config", "", "components file of fs-server and fs-admin")
	cmd.Flags().StringVar(&flags.services, "services_config", "", "services file of fs-server; needs --components_config")
	cmd.Flags().StringVar(&flags.client, "client_config", "", "main file of fs-client; its configuration directory is checked too")
	cmd.MarkFlagsOneRequired("components_config", "client_config")
	return cmd
}

func (a *app) checkConfig(flags checkFlags) error {
	if flags.services != "" && flags.components == "" {
		return usagef("--services_config needs --components_config")
	}
	var errs []error
	if flags.components != "" {
		errs = append(errs, config.CheckFiles(a.Out, flags.components, flags.services, 0))
	}
	if flags.client != "" {
		errs = append(errs, agentconfig.CheckFiles(a.Out, flags.client))
	}
	return errors.Join(errs...)
}
