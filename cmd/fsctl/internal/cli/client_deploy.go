package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/adminapi"
	"github.com/farspeak/farspeak/cmd/fsctl/internal/deployment"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// Types of the messages that deploy services. Agents take them from the server's service "system" only.
const (
	typeInstallService = "InstallService"
	typeRemoveService  = "RemoveService"
)

// installFlags say what is installed: a configuration to be signed here, or one that was signed elsewhere.
type installFlags struct {
	config, key string
	signed      string
	wait        waitFlags
}

func (a *app) clientInstallCommand() *cobra.Command {
	var flags installFlags
	cmd := &cobra.Command{
		Use:   "install CLIENT_ID ... | -",
		Short: "Install a service on clients, in place of one of that name",
		Long: `Install a service on each of these clients ("-" reads their IDs from standard input), in place of one of that name. It
runs at once, and after each restart of the agent.

The configuration is a fleetspeak.ClientServiceConfig as text, which is signed with the private half of the deployment
key; or, where that key does not leave a safe place, a file that was signed there: a serialized
fleetspeak.SignedClientServiceConfig, as in an agent's directory services.

Agents without farspeak.deployment_public_key_file in their configuration refuse, and so do those with another key or
without a required label. --wait tells.`,
		Example: `  fsctl client install 00c0ffee00c0ffee --config probe.service --key deployment.pem --wait
  fsctl client list --label linux | fsctl client install - --signed_config probe.signed`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeClients,
		RunE: a.call(func(ctx context.Context, api *adminapi.Client, args []string) error {
			return a.installService(ctx, api, args, &flags)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&flags.config, "config", "", "text file with the service's configuration; needs --key")
	f.StringVar(&flags.key, "key", "", "PEM file with the RSA private key to sign it with")
	f.StringVar(&flags.signed, "signed_config", "", "file with the service's signed configuration, in place of --config and --key")
	flags.wait.register(cmd)
	cmd.MarkFlagsOneRequired("config", "signed_config")
	cmd.MarkFlagsRequiredTogether("config", "key")
	cmd.MarkFlagsMutuallyExclusive("config", "signed_config")
	return cmd
}

func (a *app) installService(ctx context.Context, api *adminapi.Client, args []string, flags *installFlags) error {
	signed, err := flags.signedConfig()
	if err != nil {
		return err
	}
	return a.tellAgents(ctx, api, args, agentRequest{from: systemService, kind: typeInstallService, data: signed}, flags.wait)
}

func (f *installFlags) signedConfig() (*fspb.SignedClientServiceConfig, error) {
	if f.signed != "" {
		return deployment.ReadSigned(f.signed)
	}
	config, err := deployment.ReadConfig(f.config)
	if err != nil {
		return nil, err
	}
	key, err := deployment.ReadKey(f.key)
	if err != nil {
		return nil, err
	}
	return deployment.Sign(key, config, time.Now())
}

func (a *app) clientRemoveCommand() *cobra.Command {
	var wait waitFlags
	cmd := &cobra.Command{
		Use:   "remove CLIENT_ID SERVICE",
		Short: "Remove an installed service from a client",
		Long: `Remove a service from a client ("-" reads the IDs of many from standard input): it stops at once and is not started
again. Only services that were signed can be removed, those of an agent's directory services; messages that wait for the
service fail.`,
		Example: `  fsctl client remove 00c0ffee00c0ffee Probe --wait
  fsctl client list --label linux | fsctl client remove - Probe`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeClientService,
		RunE: a.call(func(ctx context.Context, api *adminapi.Client, args []string) error {
			request, err := aboutService(systemService, typeRemoveService, args[1], &fspb.RemoveServiceData{Name: args[1]})
			if err != nil {
				return err
			}
			return a.tellAgents(ctx, api, args[:1], request, wait)
		}),
	}
	wait.register(cmd)
	return cmd
}
