package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/farspeak/farspeak/cmd/fsctl/internal/adminapi"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

// Bounds of the time between two looks at messages that somebody waits for.
const (
	pollFirst = 50 * time.Millisecond
	pollMax   = 2 * time.Second
)

// waitFlags say whether a command that sends messages waits for what becomes of them.
type waitFlags struct {
	wait    bool
	timeout time.Duration
}

func (w *waitFlags) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.wait, "wait", false, "wait until the messages are completed")
	cmd.Flags().DurationVar(&w.timeout, "wait_timeout", 5*time.Minute, "how long --wait waits at most")
}

// waitForMessages shows each message when it is completed. What is not when time is over has failed.
func (a *app) waitForMessages(ctx context.Context, api *adminapi.Client, messages []*fspb.Message, limit time.Duration,
	show func(sentRow) error,
) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	failed, total := 0, len(messages)
	for pause := pollFirst; ; pause = min(2*pause, pollMax) {
		open, bad, err := a.showCompleted(ctx, api, messages, show)
		failed += bad
		if err != nil {
			return err
		}
		if messages = open; len(messages) == 0 {
			break
		}
		next := time.NewTimer(pause)
		select {
		case <-next.C:
			continue
		case <-deadline.C:
			err = fmt.Errorf("%d of %d messages are not completed after %v; they stay stored: \"fsctl message status\" tells more",
				len(messages), total, limit)
		case <-ctx.Done():
			err = ctx.Err()
		}
		next.Stop()
		return showOpen(messages, show, err)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d messages failed", failed, total)
	}
	return nil
}

// showCompleted asks for the state of messages once and returns those that are not completed.
func (a *app) showCompleted(ctx context.Context, api *adminapi.Client, messages []*fspb.Message, show func(sentRow) error) (
	open []*fspb.Message, failed int, err error,
) {
	quiet := &app{Streams: Streams{}} // a bar for each round would only flicker
	err = bulk(ctx, quiet, "wait for messages", messages,
		func(ctx context.Context, m *fspb.Message) (*serverpb.GetMessageStatusResponse, error) {
			return api.Admin.GetMessageStatus(ctx, &serverpb.GetMessageStatusRequest{MessageId: m.GetMessageId()})
		},
		func(m *fspb.Message, status *serverpb.GetMessageStatusResponse, err error) (bool, error) {
			result := status.GetResult()
			if err != nil || result == nil {
				open = append(open, m)
				return false, err
			}
			row := newSentRow(m)
			row.Status, row.Processed, row.Error = statusCompleted, toTime(result.GetProcessedTime()), result.GetFailedReason()
			if result.GetFailed() {
				row.Status = statusFailed
				failed++
			}
			return false, show(row)
		})
	return open, failed, err
}

// showOpen shows messages that are not completed and returns why nobody waits any longer.
func showOpen(messages []*fspb.Message, show func(sentRow) error, why error) error {
	for _, m := range messages {
		if err := show(newSentRow(m)); err != nil {
			return err
		}
	}
	return why
}
