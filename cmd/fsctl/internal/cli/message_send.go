package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/adminapi"
	"github.com/farspeak/farspeak/internal/identity"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// source is the service that messages and broadcasts come from unless another is named.
const source = "fsctl"

// sendFlags are those of "message send".
type sendFlags struct {
	service, source string
	id              string
	annotations     []string
	payload         payloadFlags
	wait            waitFlags
}

func (a *app) messageSendCommand() *cobra.Command {
	var flags sendFlags
	cmd := &cobra.Command{
		Use:   "send CLIENT_ID ... | -",
		Short: "Send a message to a service of clients",
		Long: `Send a message to a service of each of these clients ("-" reads their IDs from standard input) and print its ID.
A message that is printed is stored, and will be delivered as soon as the client is there.

The payload is one of: nothing; --data_file, already serialized, of the type --type_url; --json, of a type that fsctl
knows; --stdin_args and --stdin_input, a request to a Stdin service. What a client answers goes to the service of that
name on the server side, not to fsctl.

With --wait the command ends when each message was completed or failed.`,
		Example: `  fsctl message send 00c0ffee00c0ffee --service Shell --stdin_args=-c --stdin_args='uname -a' --wait
  fsctl message send 00c0ffee00c0ffee --service system --type RestartService \
      --json '{"@type": "type.googleapis.com/fleetspeak.RestartServiceRequest", "name": "Shell"}'
  fsctl client list --label linux | fsctl message send - --service Probe --type Ping
  fsctl message send 00c0ffee00c0ffee --service Probe --type Run --type_url example.Run --data_file run.pb`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeClients,
		RunE: a.call(func(ctx context.Context, api *adminapi.Client, args []string) error {
			return a.sendMessages(ctx, api, args, &flags)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&flags.service, "service", "", "service on the client (required)")
	f.StringVar(&flags.source, "source", source, "service that the message comes from")
	f.StringVar(&flags.id, "message_id", "", "ID of the message, 64 hex digits, for one client only; the same ID twice is one message (default random)")
	f.StringArrayVar(&flags.annotations, "annotation", nil, "KEY=VALUE to go with the message; again for more")
	flags.wait.register(cmd)
	flags.payload.register(cmd)
	required(cmd, "service")
	return cmd
}

// sentRow is a message that was sent, or not.
type sentRow struct {
	ClientID  string    `json:"client_id"`
	MessageID string    `json:"message_id"`
	Status    string    `json:"status"` // stored, completed or failed
	Processed time.Time `json:"processed_time,omitzero"`
	Error     string    `json:"error,omitempty"`
}

func (a *app) sendMessages(ctx context.Context, api *adminapi.Client, args []string, flags *sendFlags) error {
	template, err := a.messageTemplate(args, flags)
	if err != nil {
		return err
	}
	ids, err := a.clientIDs(args)
	if err != nil {
		return err
	}
	messages, err := newMessages(template, ids, flags.id)
	if err != nil {
		return err
	}
	return a.deliver(ctx, api, messages, flags.wait)
}

// deliver inserts messages, and shows each when it is stored, or with --wait when it is completed.
func (a *app) deliver(ctx context.Context, api *adminapi.Client, messages []*fspb.Message, wait waitFlags) error {
	list := a.list(idHead, "MESSAGE_ID", "STATUS", "ERROR")
	show := func(row sentRow) error {
		return list.Add(row, row.ClientID, row.MessageID, row.Status, row.Error)
	}
	var stored []*fspb.Message
	err := bulk(ctx, a, "send messages", messages,
		func(ctx context.Context, m *fspb.Message) (struct{}, error) {
			_, err := api.Admin.InsertMessage(ctx, m)
			return struct{}{}, err
		},
		func(m *fspb.Message, _ struct{}, err error) (bool, error) {
			if err == nil && wait.wait {
				stored = append(stored, m)
				return false, nil
			}
			row := newSentRow(m)
			if err != nil {
				row.Status, row.Error = statusFailed, errorText(api, err)
			}
			return err != nil, show(row)
		})
	if wait.wait && (err == nil || len(stored) > 0) {
		if waitErr := a.waitForMessages(ctx, api, stored, wait.timeout, show); err == nil {
			err = waitErr
		}
	}
	if closeErr := list.Close(); err == nil {
		err = closeErr
	}
	return err
}

func newSentRow(m *fspb.Message) sentRow {
	return sentRow{ClientID: hex(m.GetDestination().GetClientId()), MessageID: hex(m.GetMessageId()), Status: statusStored}
}

// messageTemplate is what the messages to all clients have in common.
func (a *app) messageTemplate(args []string, flags *sendFlags) (*fspb.Message, error) {
	kind, data, err := flags.payload.build(a, args)
	if err != nil {
		return nil, err
	}
	annotations, err := parseAnnotations(flags.annotations)
	if err != nil {
		return nil, err
	}
	return &fspb.Message{
		Source:      &fspb.Address{ServiceName: flags.source},
		Destination: &fspb.Address{ServiceName: flags.service},
		MessageType: kind,
		Data:        data,
		Annotations: annotations,
	}, nil
}

// newMessages makes a message for each client. IDs are fixed here, before the first try, so that a repeated call is the
// same message.
func newMessages(template *fspb.Message, ids []identity.ClientID, fixed string) ([]*fspb.Message, error) {
	if fixed != "" && len(ids) > 1 {
		return nil, usagef("--message_id is for one client, not for %d", len(ids))
	}
	messages := make([]*fspb.Message, len(ids))
	for i, id := range ids {
		messageID := identity.NewMessageID()
		if fixed != "" {
			given, err := parseMessageIDs([]string{fixed})
			if err != nil {
				return nil, err
			}
			messageID = given[0]
		}
		messages[i] = &fspb.Message{
			MessageId:   messageID.Bytes(),
			Source:      template.Source,
			Destination: &fspb.Address{ClientId: id.Bytes(), ServiceName: template.GetDestination().GetServiceName()},
			MessageType: template.MessageType,
			Data:        template.Data, // shared: it may be large and the clients many
			Annotations: template.Annotations,
		}
	}
	return messages, nil
}

func parseAnnotations(texts []string) (*fspb.Annotations, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	annotations := &fspb.Annotations{}
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, usagef("--annotation %q: want KEY=VALUE", text)
		}
		annotations.Entries = append(annotations.Entries, &fspb.Annotations_Entry{Key: key, Value: value})
	}
	return annotations, nil
}
