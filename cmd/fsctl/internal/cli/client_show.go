package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/adminapi"
	"github.com/farspeak/farspeak/cmd/fsctl/internal/render"
	"github.com/farspeak/farspeak/internal/identity"
	controlpb "github.com/farspeak/farspeak/proto/farspeak/control"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

func (a *app) clientShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show CLIENT_ID",
		Short:             "Show all that is known about a client",
		Example:           `  fsctl client show 00c0ffee00c0ffee`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeClients,
		RunE:              a.call(a.showClient),
	}
}

// clientDetails is a client with what other calls tell about it.
type clientDetails struct {
	clientRow
	PendingMessages uint64       `json:"pending_messages"`
	Services        []serviceRow `json:"services,omitempty"`
}

func (a *app) showClient(ctx context.Context, api *adminapi.Client, args []string) error {
	id, err := parseClientID(args[0])
	if err != nil {
		return usageError{err}
	}
	clients, err := api.Admin.ListClients(ctx, &serverpb.ListClientsRequest{ClientIds: [][]byte{id.Bytes()}})
	if err != nil {
		return err
	}
	if len(clients.GetClients()) == 0 {
		return fmt.Errorf("client %v is not known: \"fsctl client list\" shows those that are", id)
	}
	details := clientDetails{clientRow: newClientRow(clients.GetClients()[0])}
	pending, err := api.Admin.GetPendingMessageCount(ctx, &serverpb.GetPendingMessageCountRequest{ClientIds: [][]byte{id.Bytes()}})
	if err != nil {
		return err
	}
	details.PendingMessages = pending.GetCount()
	// The original's admin daemon has no such call, and a client is worth showing without.
	if details.Services, err = clientServices(ctx, api, id); err != nil && !adminapi.Is(err, codes.Unimplemented) {
		return err
	}
	return a.one(details, details.fields()...)
}

func (d *clientDetails) fields() []render.Field {
	var services []string
	for _, s := range d.Services {
		services = append(services, s.Name)
	}
	return []render.Field{
		{Name: "Client ID", Value: d.ClientID},
		{Name: "Labels", Value: d.labelTexts()},
		{Name: "Services", Value: services},
		{Name: "Last contact", Value: d.LastContact},
		{Name: "Address", Value: d.Address},
		{Name: "Streaming to", Value: d.StreamingTo},
		{Name: "Client's clock", Value: d.LastClock},
		{Name: "Blacklisted", Value: d.Blacklisted},
		{Name: "Pending messages", Value: d.PendingMessages},
	}
}

func (a *app) clientContactsCommand() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "contacts CLIENT_ID",
		Short: "List the recorded contacts of a client, newest first",
		Long: `List the recorded contacts of a client, newest first. A contact is one poll or the start of one session. A nonce
that was received and that no earlier contact sent is a sign of a copied client.`,
		Example:           `  fsctl client contacts --limit 10 00c0ffee00c0ffee`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeClients,
		RunE: a.call(func(ctx context.Context, api *adminapi.Client, args []string) error {
			return a.listContacts(ctx, api, args[0], limit)
		}),
	}
	cmd.Flags().IntVar(&limit, "limit", 100, "most contacts to list; 0 lists all")
	return cmd
}

func (a *app) listContacts(ctx context.Context, api *adminapi.Client, arg string, limit int) error {
	id, err := parseClientID(arg)
	if err != nil {
		return usageError{err}
	}
	var rows []contactRow
	open := func(ctx context.Context) (grpc.ServerStreamingClient[serverpb.StreamClientContactsResponse], error) {
		return api.Admin.StreamClientContacts(ctx, &serverpb.StreamClientContactsRequest{ClientId: id.Bytes()})
	}
	err = adminapi.Each(ctx, api, open, func(m *serverpb.StreamClientContactsResponse) error {
		rows = append(rows, newContactRow(m.GetContact()))
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(rows, func(a, b contactRow) int { return b.Time.Compare(a.Time) })
	if limit > 0 && len(rows) > limit {
		rows = rows[:limit]
	}
	list := a.list("TIME", "ADDRESS", "SENT_NONCE", "RECEIVED_NONCE")
	for _, r := range rows {
		if err := list.Add(r, r.Time, r.Address, r.SentNonce, r.ReceivedNonce); err != nil {
			return err
		}
	}
	return list.Close()
}

func (a *app) clientServicesCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "services CLIENT_ID",
		Short:             "List the services that a client reported last",
		Example:           `  fsctl client services 00c0ffee00c0ffee`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeClients,
		RunE: a.call(func(ctx context.Context, api *adminapi.Client, args []string) error {
			id, err := parseClientID(args[0])
			if err != nil {
				return usageError{err}
			}
			rows, err := clientServices(ctx, api, id)
			if err != nil {
				return err
			}
			list := a.list("SERVICE", "SIGNATURE")
			for _, r := range rows {
				if err := list.Add(r, r.Name, r.Signature); err != nil {
					return err
				}
			}
			return list.Close()
		}),
	}
}

func clientServices(ctx context.Context, api *adminapi.Client, id identity.ClientID) ([]serviceRow, error) {
	answer, err := api.Control.ListClientServices(ctx, &controlpb.ListClientServicesRequest{ClientId: id.Bytes()})
	if err != nil {
		return nil, err
	}
	var rows []serviceRow
	for _, s := range answer.GetServices() {
		rows = append(rows, serviceRow{s.GetName(), fmt.Sprintf("%x", s.GetSignature())})
	}
	return rows, nil
}
