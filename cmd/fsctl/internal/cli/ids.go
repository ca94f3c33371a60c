package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/adminapi"
	"github.com/farspeak/farspeak/internal/identity"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// idHead is the head of the column with client IDs, in the lists that fsctl prints and in those that it reads back.
const idHead = "CLIENT_ID"

// clientIDs reads the client IDs among the words of a command line, each once. The word "-" stands for those on standard
// input: the first word of every line, so that the output of "fsctl client list" can be piped in.
func (a *app) clientIDs(args []string) ([]identity.ClientID, error) {
	set := idSet{seen: map[identity.ClientID]bool{}}
	for _, arg := range args {
		if arg != "-" {
			if err := set.add(arg); err != nil {
				return nil, usageError{err}
			}
			continue
		}
		if err := set.read(a.In); err != nil {
			return nil, err
		}
	}
	if len(set.ids) == 0 {
		return nil, fmt.Errorf("no client ID on standard input: give one at the beginning of each line")
	}
	return set.ids, nil
}

// idSet is client IDs without repetitions, in order.
type idSet struct {
	ids  []identity.ClientID
	seen map[identity.ClientID]bool
}

func (s *idSet) add(text string) error {
	id, err := parseClientID(text)
	if err != nil {
		return err
	}
	if !s.seen[id] {
		s.seen[id] = true
		s.ids = append(s.ids, id)
	}
	return nil
}

func (s *idSet) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	for number := 1; lines.Scan(); number++ {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || words[0] == idHead || strings.HasPrefix(words[0], "#") {
			continue
		}
		if err := s.add(words[0]); err != nil {
			return fmt.Errorf("standard input, line %d: %w", number, err)
		}
	}
	return lines.Err()
}

func parseClientID(text string) (identity.ClientID, error) {
	id, err := identity.ParseClientID(text)
	if err == nil && id.IsNil() {
		err = fmt.Errorf("client ID %q names no client", text)
	}
	return id, err
}

func parseMessageIDs(args []string) ([]identity.MessageID, error) {
	ids := make([]identity.MessageID, len(args))
	for i, arg := range args {
		id, err := identity.ParseMessageID(arg)
		if err == nil && id.IsNil() {
			err = fmt.Errorf("message ID %q names no message", arg)
		}
		if err != nil {
			return nil, usageError{err}
		}
		ids[i] = id
	}
	return ids, nil
}

// toBytes returns IDs as requests carry them.
func toBytes[ID interface{ Bytes() []byte }](ids []ID) [][]byte {
	raw := make([][]byte, len(ids))
	for i, id := range ids {
		raw[i] = id.Bytes()
	}
	return raw
}

// Somebody waits with a finger on the tab key.
const (
	completionTimeout = 700 * time.Millisecond
	completionMax     = 200
)

// completeClients offers the IDs of clients that fs-admin knows and that begin with what was typed.
func (a *app) completeClients(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	api, err := a.connection.dial()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer api.Close()
	var found []cobra.Completion
	open := func(ctx context.Context) (grpc.ServerStreamingClient[serverpb.StreamClientIdsResponse], error) {
		return api.Admin.StreamClientIds(ctx, &serverpb.StreamClientIdsRequest{IncludeBlacklisted: true})
	}
	// What came in time is offered even when the stream then failed.
	_ = adminapi.Each(ctx, api, open, func(m *serverpb.StreamClientIdsResponse) error {
		id, err := identity.ClientIDFromBytes(m.GetClientId())
		if err != nil {
			return err
		}
		if text := id.String(); strings.HasPrefix(text, strings.ToLower(typed)) {
			found = append(found, text)
		}
		if len(found) == completionMax {
			return adminapi.ErrStop
		}
		return nil
	})
	return found, cobra.ShellCompDirectiveNoFileComp
}
