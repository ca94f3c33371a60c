package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/adminapi"
	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
)

func (a *app) serverCommand() *cobra.Command {
	return a.newAPIGroup("server", "Look at the running fs-servers", &cobra.Command{
		Use:     "list",
		Short:   "List the fs-servers that the store knows, also those that died without a farewell",
		Example: `  fsctl server list`,
		Args:    cobra.NoArgs,
		RunE:    a.call(a.listServers),
	})
}

// serverRow is an fs-server as its last heartbeat described it.
type serverRow struct {
	ServerID  string    `json:"server_id"`
	Address   string    `json:"notification_address"`
	Version   string    `json:"version"`
	Sessions  uint64    `json:"sessions"`
	Draining  bool      `json:"draining"`
	Heartbeat time.Time `json:"last_heartbeat,omitzero"`
}

func (a *app) listServers(ctx context.Context, api *adminapi.Client, _ []string) error {
	answer, err := api.Control.ListServers(ctx, &controlpb.ListServersRequest{})
	if err != nil {
		return err
	}
	list := a.list("SERVER_ID", "ADDRESS", "VERSION", "SESSIONS", "DRAINING", "LAST_HEARTBEAT")
	for _, s := range answer.GetServers() {
		row := serverRow{s.GetServerId(), s.GetNotificationAddress(), s.GetVersion(), s.GetSessions(), s.GetDraining(), toTime(s.GetLastHeartbeat())}
		if err := list.Add(row, row.ServerID, row.Address, row.Version, row.Sessions, row.Draining, row.Heartbeat); err != nil {
			return err
		}
	}
	return list.Close()
}
