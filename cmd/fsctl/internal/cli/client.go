package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/adminapi"
	"github.com/farspeak/farspeak/cmd/fsctl/internal/render"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// listBatch is how many clients one call of a listing asks for.
const listBatch = 500

func (a *app) clientCommand() *cobra.Command {
	return a.newAPIGroup("client", "Look at clients, change what they run, and refuse them",
		a.clientListCommand(), a.clientShowCommand(), a.clientContactsCommand(), a.clientServicesCommand(),
		a.clientInstallCommand(), a.clientRemoveCommand(), a.clientRestartCommand(), a.clientDieCommand(), a.clientBlacklistCommand())
}

// listFilter selects the clients of a listing.
type listFilter struct {
	labels     []string
	seenWithin time.Duration
	active     bool
}

func (a *app) clientListCommand() *cobra.Command {
	var filter listFilter
	cmd := &cobra.Command{
		Use:   "list [CLIENT_ID ... | -]",
		Short: "List clients",
		Long: `List the clients with these IDs ("-" reads them from standard input), or all. Blacklisted clients are listed too,
unless --exclude_blacklisted is given.`,
		Example: `  fsctl client list
  fsctl client list --label linux --seen_within 1h
  fsctl client list --output json | jq -r '.[].client_id'`,
		ValidArgsFunction: a.completeClients,
		RunE: a.call(func(ctx context.Context, api *adminapi.Client, args []string) error {
			return a.listClients(ctx, api, args, filter)
		}),
	}
	cmd.Flags().StringArrayVar(&filter.labels, "label", nil, "only clients with this label; again for more, all must be there")
	cmd.Flags().DurationVar(&filter.seenWithin, "seen_within", 0, "only clients whose last contact is younger than this")
	cmd.Flags().BoolVar(&filter.active, "exclude_blacklisted", false, "leave blacklisted clients out")
	return cmd
}

func (a *app) listClients(ctx context.Context, api *adminapi.Client, args []string, filter listFilter) error {
	list := a.list(idHead, "LAST_CONTACT", "ADDRESS", "STREAMING_TO", "BLACKLISTED", "LABELS")
	show := func(batch [][]byte) error {
		answer, err := api.Admin.ListClients(ctx, &serverpb.ListClientsRequest{ClientIds: batch})
		if err != nil {
			return err
		}
		return addClients(list, answer.GetClients(), filter)
	}
	var err error
	if len(args) > 0 {
		err = a.eachGivenBatch(args, show)
	} else {
		err = eachStreamedBatch(ctx, api, filter, show)
	}
	if err != nil {
		return err
	}
	return list.Close()
}

// eachGivenBatch calls show with the IDs of the command line, in parts.
func (a *app) eachGivenBatch(args []string, show func([][]byte) error) error {
	ids, err := a.clientIDs(args)
	if err != nil {
		return err
	}
	for batch := range slices.Chunk(ids, listBatch) {
		if err := show(toBytes(batch)); err != nil {
			return err
		}
	}
	return nil
}

// eachStreamedBatch calls show with the IDs that fs-admin knows, in parts, so that a list of any length needs little
// memory on either side.
func eachStreamedBatch(ctx context.Context, api *adminapi.Client, filter listFilter, show func([][]byte) error) error {
	request := &serverpb.StreamClientIdsRequest{IncludeBlacklisted: !filter.active}
	if filter.seenWithin > 0 {
		request.LastContactAfter = timestamppb.New(time.Now().Add(-filter.seenWithin))
	}
	open := func(ctx context.Context) (grpc.ServerStreamingClient[serverpb.StreamClientIdsResponse], error) {
		return api.Admin.StreamClientIds(ctx, request)
	}
	var batch [][]byte
	err := adminapi.Each(ctx, api, open, func(m *serverpb.StreamClientIdsResponse) error {
		batch = append(batch, m.GetClientId())
		if len(batch) < listBatch {
			return nil
		}
		full := batch
		batch = nil
		return show(full)
	})
	if err != nil || len(batch) == 0 {
		return err
	}
	return show(batch)
}

func addClients(list *render.List, clients []*serverpb.Client, filter listFilter) error {
	slices.SortFunc(clients, func(a, b *serverpb.Client) int { return slices.Compare(a.GetClientId(), b.GetClientId()) })
	for _, c := range clients {
		row := newClientRow(c)
		if !filter.takes(row) {
			continue
		}
		if err := list.Add(row, row.ClientID, row.LastContact, row.Address, row.StreamingTo, row.Blacklisted, row.labelTexts()); err != nil {
			return err
		}
	}
	return list.Flush()
}

func (f *listFilter) takes(row clientRow) bool {
	if f.active && row.Blacklisted {
		return false
	}
	if f.seenWithin > 0 && time.Since(row.LastContact) > f.seenWithin {
		return false
	}
	for _, wanted := range f.labels {
		if !slices.Contains(row.Labels, parseLabel(wanted)) {
			return false
		}
	}
	return true
}
