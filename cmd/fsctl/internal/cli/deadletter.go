package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/adminapi"
	"github.com/farspeak/farspeak/cmd/fsctl/internal/render"
	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
)

func (a *app) deadletterCommand() *cobra.Command {
	retry := a.deadletterChangeCommand("retry", "Give dead letters to their service again", "Retried",
		func(ctx context.Context, api *adminapi.Client, service string, ids [][]byte) (uint64, error) {
			answer, err := api.Control.RetryDeadLetters(ctx, &controlpb.RetryDeadLettersRequest{Service: service, MessageIds: ids})
			return answer.GetCount(), err
		})
	remove := a.deadletterChangeCommand("delete", "Discard dead letters with their payloads", "Deleted",
		func(ctx context.Context, api *adminapi.Client, service string, ids [][]byte) (uint64, error) {
			answer, err := api.Control.DeleteDeadLetters(ctx, &controlpb.DeleteDeadLettersRequest{Service: service, MessageIds: ids})
			return answer.GetCount(), err
		})
	return a.newAPIGroup("deadletter", "Look after messages that server-side services refused for good",
		a.deadletterListCommand(), retry, remove)
}

// deadletterRow is a message that a service refused.
type deadletterRow struct {
	Service  string     `json:"service_name"`
	Message  pendingRow `json:"message"`
	ClientID string     `json:"source_client_id"`
	Reason   string     `json:"reason"`
	Failed   time.Time  `json:"failed_time,omitzero"`
	Attempts uint32     `json:"attempts"`
}

func (a *app) deadletterListCommand() *cobra.Command {
	request := &controlpb.ListDeadLettersRequest{}
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dead letters",
		Example: `  fsctl deadletter list --service Shell
  fsctl deadletter list --data --output json`,
		Args: cobra.NoArgs,
		RunE: a.call(func(ctx context.Context, api *adminapi.Client, _ []string) error {
			return a.listDeadLetters(ctx, api, request, limit)
		}),
	}
	cmd.Flags().StringVar(&request.Service, "service", "", "only those of this service")
	cmd.Flags().BoolVar(&request.WantData, "data", false, "payloads too, in JSON")
	cmd.Flags().IntVar(&limit, "limit", 100, "most letters to list; 0 lists all")
	return cmd
}

func (a *app) listDeadLetters(ctx context.Context, api *adminapi.Client, request *controlpb.ListDeadLettersRequest, limit int) error {
	list := a.list("SERVICE", "MESSAGE_ID", "CLIENT_ID", "TYPE", "FAILED", "ATTEMPTS", "REASON")
	for shown := 0; ; {
		if limit > 0 {
			request.PageSize = uint32(min(limit-shown, listBatch))
		}
		answer, err := api.Control.ListDeadLetters(ctx, request)
		if err != nil {
			return err
		}
		for _, letter := range answer.GetDeadLetters() {
			if err := addDeadLetter(list, letter); err != nil {
				return err
			}
		}
		shown += len(answer.GetDeadLetters())
		request.PageToken = answer.GetNextPageToken()
		if request.GetPageToken() == "" || limit > 0 && shown >= limit {
			return list.Close()
		}
	}
}

func addDeadLetter(list *render.List, letter *controlpb.DeadLetter) error {
	message, err := newPendingRow(letter.GetMessage())
	if err != nil {
		return err
	}
	row := deadletterRow{
		Service:  letter.GetService(),
		Message:  message,
		ClientID: hex(letter.GetMessage().GetSource().GetClientId()),
		Reason:   letter.GetReason(),
		Failed:   toTime(letter.GetFailedTime()),
		Attempts: letter.GetAttempts(),
	}
	return list.Add(row, row.Service, message.MessageID, row.ClientID, message.Type, row.Failed, row.Attempts, row.Reason)
}

// deadletterChangeCommand returns a command that does one thing to some or all letters of a service.
func (a *app) deadletterChangeCommand(use, short, done string,
	change func(context.Context, *adminapi.Client, string, [][]byte) (uint64, error),
) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:               use + " SERVICE {MESSAGE_ID ... | --all}",
		Short:             short,
		Example:           "  fsctl deadletter " + use + " Shell --all",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.call(func(ctx context.Context, api *adminapi.Client, args []string) error {
			if all != (len(args) == 1) {
				return usagef("say which letters: message IDs, or --all of the service")
			}
			ids, err := parseMessageIDs(args[1:])
			if err != nil {
				return err
			}
			count, err := change(ctx, api, args[0], toBytes(ids))
			if err != nil {
				return err
			}
			return a.one(countRow{count}, field(done, count))
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "all dead letters of the service")
	return cmd
}
