package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/adminapi"
	"github.com/farspeak/farspeak/cmd/fsctl/internal/payload"
	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// States of a message.
const (
	statusUnknown   = "unknown"
	statusStored    = "stored"
	statusCompleted = "completed"
	statusFailed    = "failed"
)

func (a *app) messageCommand() *cobra.Command {
	return a.newAPIGroup("message", "Send messages to clients and see what became of them",
		a.messageSendCommand(), a.messageStatusCommand(), a.messagePendingCommand(), a.messageDeleteCommand())
}

func (a *app) messageStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status MESSAGE_ID ...",
		Short: "Show what became of messages",
		Long: `Show what became of messages: stored (not yet completed), completed, failed, or unknown. The command fails when one
of them failed or is unknown.`,
		Example: `  fsctl message status 2d0e…64 hex digits…b1`,
		Args:    cobra.MinimumNArgs(1),
		RunE:    a.call(a.showStatus),
	}
}

// statusRow is the state of a message.
type statusRow struct {
	MessageID string    `json:"message_id"`
	Status    string    `json:"status"`
	Created   time.Time `json:"creation_time,omitzero"`
	Processed time.Time `json:"processed_time,omitzero"`
	Error     string    `json:"error,omitempty"`
}

func newStatusRow(id identity.MessageID, answer *serverpb.GetMessageStatusResponse) statusRow {
	row := statusRow{MessageID: id.String(), Status: statusUnknown, Created: toTime(answer.GetCreationTime())}
	result := answer.GetResult()
	row.Processed = toTime(result.GetProcessedTime())
	switch {
	case result.GetFailed():
		row.Status, row.Error = statusFailed, result.GetFailedReason()
	case result != nil:
		row.Status = statusCompleted
	case answer.GetCreationTime() != nil:
		row.Status = statusStored
	}
	return row
}

func (a *app) showStatus(ctx context.Context, api *adminapi.Client, args []string) error {
	ids, err := parseMessageIDs(args)
	if err != nil {
		return err
	}
	list := a.list("MESSAGE_ID", "STATUS", "CREATED", "PROCESSED", "ERROR")
	bad := 0
	for _, id := range ids {
		answer, err := api.Admin.GetMessageStatus(ctx, &serverpb.GetMessageStatusRequest{MessageId: id.Bytes()})
		if err != nil {
			return err
		}
		row := newStatusRow(id, answer)
		if row.Status == statusFailed || row.Status == statusUnknown {
			bad++
		}
		if err := list.Add(row, row.MessageID, row.Status, row.Created, row.Processed, row.Error); err != nil {
			return err
		}
	}
	if err := list.Close(); err != nil {
		return err
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d messages failed or are unknown", bad, len(ids))
	}
	return nil
}

func (a *app) messagePendingCommand() *cobra.Command {
	request := &serverpb.GetPendingMessagesRequest{}
	var count bool
	cmd := &cobra.Command{
		Use:   "pending CLIENT_ID ... | -",
		Short: "List messages that wait for clients",
		Long: `List messages to clients that are not completed, in the order of their IDs. Those that were handed out and wait
for an acknowledgement are among them.`,
		Example: `  fsctl message pending 00c0ffee00c0ffee
  fsctl message pending 00c0ffee00c0ffee --data --output json
  fsctl client list | fsctl message pending --count -`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeClients,
		RunE: a.call(func(ctx context.Context, api *adminapi.Client, args []string) error {
			ids, err := a.clientIDs(args)
			if err != nil {
				return err
			}
			if count {
				return a.countPending(ctx, api, ids)
			}
			request.ClientIds = toBytes(ids)
			return a.listPending(ctx, api, request)
		}),
	}
	cmd.Flags().Uint64Var(&request.Limit, "limit", 100, "most messages to list; 0 lists all")
	cmd.Flags().Uint64Var(&request.Offset, "offset", 0, "messages to pass over; needs a --limit")
	cmd.Flags().BoolVar(&request.WantData, "data", false, "payloads too")
	cmd.Flags().BoolVar(&count, "count", false, "only count them")
	cmd.MarkFlagsMutuallyExclusive("count", "data")
	return cmd
}

// pendingRow is a message that waits.
type pendingRow struct {
	MessageID string          `json:"message_id"`
	ClientID  string          `json:"client_id"`
	Service   string          `json:"service_name"`
	Source    string          `json:"source_service_name"`
	Type      string          `json:"message_type"`
	Created   time.Time       `json:"creation_time,omitzero"`
	Data      json.RawMessage `json:"data,omitempty"`
}

func newPendingRow(m *fspb.Message) (pendingRow, error) {
	data, err := payload.Describe(m.GetData())
	return pendingRow{
		MessageID: hex(m.GetMessageId()),
		ClientID:  hex(m.GetDestination().GetClientId()),
		Service:   m.GetDestination().GetServiceName(),
		Source:    m.GetSource().GetServiceName(),
		Type:      m.GetMessageType(),
		Created:   toTime(m.GetCreationTime()),
		Data:      data,
	}, err
}

func (a *app) listPending(ctx context.Context, api *adminapi.Client, request *serverpb.GetPendingMessagesRequest) error {
	if request.GetOffset() > 0 && request.GetLimit() == 0 {
		return usagef("--offset needs a --limit above 0")
	}
	answer, err := api.Admin.GetPendingMessages(ctx, request)
	if err != nil {
		return err
	}
	heads := []string{"MESSAGE_ID", idHead, "SERVICE", "SOURCE", "TYPE", "CREATED"}
	if request.GetWantData() {
		heads = append(heads, "DATA")
	}
	list := a.list(heads...)
	for _, m := range answer.GetMessages() {
		row, err := newPendingRow(m)
		if err != nil {
			return err
		}
		cells := []any{row.MessageID, row.ClientID, row.Service, row.Source, row.Type, row.Created, string(row.Data)}
		if err := list.Add(row, cells[:len(heads)]...); err != nil {
			return err
		}
	}
	return list.Close()
}

func (a *app) countPending(ctx context.Context, api *adminapi.Client, ids []identity.ClientID) error {
	var total uint64
	for batch := range slices.Chunk(ids, listBatch) {
		answer, err := api.Admin.GetPendingMessageCount(ctx, &serverpb.GetPendingMessageCountRequest{ClientIds: toBytes(batch)})
		if err != nil {
			return err
		}
		total += answer.GetCount()
	}
	return a.one(countRow{total}, field("Pending messages", total))
}

func (a *app) messageDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "delete CLIENT_ID ... | -",
		Short: "Delete all messages that wait for clients",
		Long: `Delete all messages that wait for these clients. The messages become failed and their payloads go; what a client has
already received it may still carry out.`,
		Example:           `  fsctl message delete 00c0ffee00c0ffee`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeClients,
		RunE:              a.call(a.deletePending),
	}
}

func (a *app) deletePending(ctx context.Context, api *adminapi.Client, args []string) error {
	ids, err := a.clientIDs(args)
	if err != nil {
		return err
	}
	batches := slices.Collect(slices.Chunk(ids, listBatch))
	err = bulk(ctx, a, "delete pending messages", batches,
		func(ctx context.Context, batch []identity.ClientID) (struct{}, error) {
			_, err := api.Admin.DeletePendingMessages(ctx, &serverpb.DeletePendingMessagesRequest{ClientIds: toBytes(batch)})
			return struct{}{}, err
		},
		func(_ []identity.ClientID, _ struct{}, err error) (bool, error) { return err != nil, err })
	if err != nil {
		return err
	}
	return a.one(emptiedRow{len(ids)}, field("Emptied queues", len(ids)))
}
