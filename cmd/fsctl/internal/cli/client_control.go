package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/adminapi"
	"github.com/farspeak/farspeak/cmd/fsctl/internal/deployment"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// systemService is the service by which an agent itself is addressed, and its counterpart on the server side.
const systemService = "system"

// Types of the messages that every agent knows, the original's too.
const (
	typeRestartService = "RestartService"
	typeDie            = "Die"
)

// agentRequest is a message to agents themselves.
type agentRequest struct {
	from string // service that it comes from
	kind string
	data proto.Message
}

// aboutService makes a request about a service that has to be one of an agent's own.
func aboutService(from, kind, name string, data proto.Message) (agentRequest, error) {
	if !deployment.LegalName(name) {
		return agentRequest{}, usagef("%q is no service that can be installed, removed or restarted", name)
	}
	return agentRequest{from, kind, data}, nil
}

// tellAgents sends a request to the agents of the clients among the words of a command line.
func (a *app) tellAgents(ctx context.Context, api *adminapi.Client, clients []string, r agentRequest, wait waitFlags) error {
	data, err := anypb.New(r.data)
	if err != nil {
		return fmt.Errorf("encode %s: %w", r.kind, err)
	}
	ids, err := a.clientIDs(clients)
	if err != nil {
		return err
	}
	messages, err := newMessages(&fspb.Message{
		Source:      &fspb.Address{ServiceName: r.from},
		Destination: &fspb.Address{ServiceName: systemService},
		MessageType: r.kind,
		Data:        data,
	}, ids, "")
	if err != nil {
		return err
	}
	return a.deliver(ctx, api, messages, wait)
}

func (a *app) clientRestartCommand() *cobra.Command {
	var wait waitFlags
	cmd := &cobra.Command{
		Use:   "restart CLIENT_ID SERVICE",
		Short: "Restart a service of a client",
		Long: `Restart a service of a client ("-" reads the IDs of many from standard input). Its process, if it has one, is replaced;
messages that wait for it are given to the new one.`,
		Example: `  fsctl client restart 00c0ffee00c0ffee Probe --wait
  fsctl client list --label linux | fsctl client restart - Probe`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeClientService,
		RunE: a.call(func(ctx context.Context, api *adminapi.Client, args []string) error {
			request, err := aboutService(source, typeRestartService, args[1], &fspb.RestartServiceRequest{Name: args[1]})
			if err != nil {
				return err
			}
			return a.tellAgents(ctx, api, args[:1], request, wait)
		}),
	}
	wait.register(cmd)
	return cmd
}

func (a *app) clientDieCommand() *cobra.Command {
	var force bool
	var wait waitFlags
	cmd := &cobra.Command{
		Use:   "die CLIENT_ID ... | -",
		Short: "End the agents of clients",
		Long: `Have the agents of these clients ("-" reads their IDs from standard input) stop their services and exit with code 7. A
service manager then usually starts them again, as the units in deploy/systemd do.

Agents do not answer this: the message is completed when it was handed out, and that is what --wait waits for.`,
		Example: `  fsctl client die 00c0ffee00c0ffee --wait
  fsctl client die 00c0ffee00c0ffee --force`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeClients,
		RunE: a.call(func(ctx context.Context, api *adminapi.Client, args []string) error {
			return a.tellAgents(ctx, api, args, agentRequest{source, typeDie, &fspb.DieRequest{Force: force}}, wait)
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "exit at once, also when services do not stop")
	wait.register(cmd)
	return cmd
}

// completeClientService offers clients for the first word, and the services that the client reported for the second.
func (a *app) completeClientService(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return a.completeClients(cmd, args, typed)
	}
	id, err := parseClientID(args[0])
	if err != nil || len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	api, err := a.connection.dial()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer api.Close()
	rows, err := clientServices(ctx, api, id)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var found []cobra.Completion
	for _, r := range rows {
		if strings.HasPrefix(r.Name, typed) {
			found = append(found, r.Name)
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
