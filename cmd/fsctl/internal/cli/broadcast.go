package cli

import (
	"context"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/adminapi"
	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// unlimited is how --limit spells the limit that means none.
const unlimited = "unlimited"

func (a *app) broadcastCommand() *cobra.Command {
	return a.newAPIGroup("broadcast", "Send messages to all clients with given labels",
		a.broadcastCreateCommand(), a.broadcastListCommand(), a.broadcastDisableCommand())
}

// broadcastFlags are those of "broadcast create".
type broadcastFlags struct {
	service, source string
	id              string
	labels          []string
	limit           string
	expiresIn       time.Duration
	group           string
	payload         payloadFlags
}

func (a *app) broadcastCreateCommand() *cobra.Command {
	var flags broadcastFlags
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Send a message to each client that has all of some labels",
		Long: `Send a message to each client that has all of these labels, connected now or later, once each, until the limit is
reached or the broadcast expires or is disabled. Prints the ID of the broadcast.

A LABEL is one that the clients claim for themselves; SERVICE:LABEL is one that another service gave. Without labels
every client is meant. Payloads are given as in "fsctl message send".`,
		Example: `  fsctl broadcast create --service Shell --label linux --limit 150 --stdin_args=-c --stdin_args='uname -a'
  fsctl broadcast create --service Probe --type Ping --limit unlimited --expires_in 24h`,
		Args: cobra.NoArgs,
		RunE: a.call(func(ctx context.Context, api *adminapi.Client, _ []string) error {
			return a.createBroadcast(ctx, api, &flags)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&flags.service, "service", "", "service on the clients (required)")
	f.StringVar(&flags.source, "source", source, "service that the messages come from")
	f.StringVar(&flags.id, "broadcast_id", "", "ID of the broadcast, 16 hex digits (default random)")
	f.StringArrayVar(&flags.labels, "label", nil, "LABEL or SERVICE:LABEL that a client must have; again for more, all must be there")
	f.StringVar(&flags.limit, "limit", "", `most clients to reach, or "`+unlimited+`" (required)`)
	f.DurationVar(&flags.expiresIn, "expires_in", 0, "end the broadcast after this time (default never)")
	f.StringVar(&flags.group, "group", "", "replace active broadcasts of this group with the same source, service and labels")
	flags.payload.register(cmd)
	required(cmd, "service", "limit")
	return cmd
}

// broadcastRow is a broadcast.
type broadcastRow struct {
	BroadcastID string     `json:"broadcast_id"`
	Source      string     `json:"source_service_name"`
	Service     string     `json:"service_name"`
	Type        string     `json:"message_type"`
	Labels      []labelRow `json:"required_labels"`
	Group       string     `json:"group_name,omitempty"`
	Expires     time.Time  `json:"expiration_time,omitzero"`
}

func newBroadcastRow(b *serverpb.Broadcast) broadcastRow {
	row := broadcastRow{
		BroadcastID: hex(b.GetBroadcastId()),
		Source:      b.GetSource().GetServiceName(),
		Service:     b.GetDestination().GetServiceName(),
		Type:        b.GetMessageType(),
		Labels:      newLabelRows(b.GetRequiredLabels()),
		Group:       b.GetGroupName(),
		Expires:     toTime(b.GetExpirationTime()),
	}
	if row.Service == "" {
		row.Service = row.Source // the protocol's rule
	}
	return row
}

func (a *app) createBroadcast(ctx context.Context, api *adminapi.Client, flags *broadcastFlags) error {
	request, err := flags.request(a)
	if err != nil {
		return err
	}
	if _, err := api.Admin.CreateBroadcast(ctx, request); err != nil {
		return err
	}
	row := newBroadcastRow(request.GetBroadcast())
	return a.one(row, field("Broadcast ID", row.BroadcastID))
}

func (f *broadcastFlags) request(a *app) (*serverpb.CreateBroadcastRequest, error) {
	limit, err := parseLimit(f.limit)
	if err != nil {
		return nil, err
	}
	id := identity.NewBroadcastID()
	if f.id != "" {
		if id, err = parseBroadcastID(f.id); err != nil {
			return nil, err
		}
	}
	kind, data, err := f.payload.build(a, nil)
	if err != nil {
		return nil, err
	}
	broadcast := &serverpb.Broadcast{
		BroadcastId: id.Bytes(),
		Source:      &fspb.Address{ServiceName: f.source},
		Destination: &fspb.Address{ServiceName: f.service},
		MessageType: kind,
		Data:        data,
		GroupName:   f.group,
	}
	for _, text := range f.labels {
		l := parseLabel(text)
		broadcast.RequiredLabels = append(broadcast.RequiredLabels, &fspb.Label{ServiceName: l.Service, Label: l.Label})
	}
	if f.expiresIn != 0 {
		broadcast.ExpirationTime = timestamppb.New(time.Now().Add(f.expiresIn))
	}
	return &serverpb.CreateBroadcastRequest{Broadcast: broadcast, Limit: limit}, nil
}

func parseLimit(text string) (uint64, error) {
	if text == unlimited {
		return math.MaxInt64, nil
	}
	limit, err := strconv.ParseUint(text, 10, 64)
	if err != nil || limit == 0 {
		return 0, usagef("--limit %q: want a number of clients above 0, or %q", text, unlimited)
	}
	return limit, nil
}

func parseBroadcastID(text string) (identity.BroadcastID, error) {
	id, err := identity.ParseBroadcastID(text)
	if err != nil {
		return id, usageError{err}
	}
	if id.IsNil() {
		return id, usagef("broadcast ID %q names no broadcast", text)
	}
	return id, nil
}

func (a *app) broadcastListCommand() *cobra.Command {
	request := &serverpb.ListActiveBroadcastsRequest{}
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the broadcasts that may still reach clients",
		Example: `  fsctl broadcast list --source fsctl`,
		Args:    cobra.NoArgs,
		RunE: a.call(func(ctx context.Context, api *adminapi.Client, _ []string) error {
			return a.listBroadcasts(ctx, api, request)
		}),
	}
	cmd.Flags().StringVar(&request.ServiceName, "source", "", "only those that come from this service")
	return cmd
}

func (a *app) listBroadcasts(ctx context.Context, api *adminapi.Client, request *serverpb.ListActiveBroadcastsRequest) error {
	answer, err := api.Admin.ListActiveBroadcasts(ctx, request)
	if err != nil {
		return err
	}
	broadcasts := answer.GetBroadcasts()
	slices.SortFunc(broadcasts, func(a, b *serverpb.Broadcast) int { return slices.Compare(a.GetBroadcastId(), b.GetBroadcastId()) })
	list := a.list("BROADCAST_ID", "SOURCE", "SERVICE", "TYPE", "EXPIRES", "LABELS")
	for _, b := range broadcasts {
		row := newBroadcastRow(b)
		if err := list.Add(row, row.BroadcastID, row.Source, row.Service, row.Type, row.Expires, labelTexts(row.Labels)); err != nil {
			return err
		}
	}
	return list.Close()
}

func (a *app) broadcastDisableCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "disable BROADCAST_ID ...",
		Short:             "Stop broadcasts",
		Long:              `Stop broadcasts. Clients that were sent a message already may still carry it out.`,
		Example:           `  fsctl broadcast disable 0badcafe0badcafe`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.call(func(ctx context.Context, api *adminapi.Client, args []string) error {
			ids := make([]identity.BroadcastID, len(args))
			for i, arg := range args {
				var err error
				if ids[i], err = parseBroadcastID(arg); err != nil {
					return err
				}
			}
			if _, err := api.Admin.DisableBroadcasts(ctx, &serverpb.DisableBroadcastsRequest{BroadcastIds: toBytes(ids)}); err != nil {
				return err
			}
			return a.one(countRow{uint64(len(ids))}, field("Disabled", len(ids)))
		}),
	}
}
