package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/adminapi"
	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
)

func (a *app) backlogCommand() *cobra.Command {
	return a.newAPIGroup("backlog", "Look at messages that wait for server-side services", &cobra.Command{
		Use:     "status",
		Short:   "Show how many messages wait for which service, and for how long",
		Example: `  fsctl backlog status`,
		Args:    cobra.NoArgs,
		RunE:    a.call(a.showBacklog),
	})
}

// backlogRow is what waits for one service.
type backlogRow struct {
	Service string  `json:"service_name"`
	Depth   uint64  `json:"depth"`
	Bytes   uint64  `json:"bytes"`
	Oldest  float64 `json:"oldest_age_seconds"`
}

func (a *app) showBacklog(ctx context.Context, api *adminapi.Client, _ []string) error {
	answer, err := api.Control.BacklogStatus(ctx, &controlpb.BacklogStatusRequest{})
	if err != nil {
		return err
	}
	list := a.list("SERVICE", "MESSAGES", "BYTES", "OLDEST")
	for _, s := range answer.GetServices() {
		age := s.GetOldestAge().AsDuration()
		row := backlogRow{s.GetService(), s.GetDepth(), s.GetBytes(), age.Seconds()}
		if err := list.Add(row, row.Service, row.Depth, row.Bytes, age.Round(time.Second)); err != nil {
			return err
		}
	}
	return list.Close()
}
