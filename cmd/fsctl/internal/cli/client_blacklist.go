package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/adminapi"
	"github.com/farspeak/farspeak/internal/identity"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

func (a *app) clientBlacklistCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "blacklist CLIENT_ID ... | -",
		Short: "Refuse the identity of clients from now on",
		Long: `Refuse the identity of clients from now on. Agents that hold such an identity are told to take a new key and come
back under another ID. There is no way back.`,
		Example:           `  fsctl client blacklist 00c0ffee00c0ffee`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeClients,
		RunE:              a.call(a.blacklist),
	}
}

// outcomeRow is what became of work on one client.
type outcomeRow struct {
	ClientID string `json:"client_id"`
	Result   string `json:"result"`
	Error    string `json:"error,omitempty"`
}

func (a *app) blacklist(ctx context.Context, api *adminapi.Client, args []string) error {
	ids, err := a.clientIDs(args)
	if err != nil {
		return err
	}
	known, err := knownClients(ctx, api, ids)
	if err != nil {
		return err
	}
	list := a.list(idHead, "RESULT", "ERROR")
	err = bulk(ctx, a, "blacklist clients", ids,
		func(ctx context.Context, id identity.ClientID) (struct{}, error) {
			if !known[id] {
				return struct{}{}, fmt.Errorf("client %v is not known", id)
			}
			_, err := api.Admin.BlacklistClient(ctx, &serverpb.BlacklistClientRequest{ClientId: id.Bytes()})
			return struct{}{}, err
		},
		func(id identity.ClientID, _ struct{}, err error) (bool, error) {
			row := outcomeRow{id.String(), "blacklisted", errorText(api, err)}
			if err != nil {
				row.Result = "failed"
			}
			return err != nil, list.Add(row, row.ClientID, row.Result, row.Error)
		})
	if closeErr := list.Close(); err == nil {
		err = closeErr
	}
	return err
}

// knownClients says which clients exist. The daemon takes a mistyped ID without a word.
func knownClients(ctx context.Context, api *adminapi.Client, ids []identity.ClientID) (map[identity.ClientID]bool, error) {
	known := map[identity.ClientID]bool{}
	for batch := range slices.Chunk(ids, listBatch) {
		answer, err := api.Admin.ListClients(ctx, &serverpb.ListClientsRequest{ClientIds: toBytes(batch)})
		if err != nil {
			return nil, err
		}
		for _, c := range answer.GetClients() {
			id, err := identity.ClientIDFromBytes(c.GetClientId())
			if err != nil {
				return nil, err
			}
			known[id] = true
		}
	}
	return known, nil
}
