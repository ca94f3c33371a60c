package adminapi

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrStop, returned by the function given to Each, ends a stream without an error.
var ErrStop = errors.New("stop")

// Each opens a stream and calls take for each message of it. The stream fails when no message comes for the client's
// timeout, however long the whole takes.
func Each[M any](ctx context.Context, c *Client, open func(context.Context) (grpc.ServerStreamingClient[M], error),
	take func(*M) error,
) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := status.Error(codes.DeadlineExceeded, "no message in time")
	watchdog := time.AfterFunc(c.timeout, func() { cancel(silent) })
	defer watchdog.Stop()

	stream, err := open(ctx)
	if err != nil {
		return streamError(ctx, silent, err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return streamError(ctx, silent, err)
		}
		watchdog.Reset(c.timeout)
		if err := take(m); errors.Is(err, ErrStop) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// streamError tells the end that the watchdog made from that of the user.
func streamError(ctx context.Context, silent, err error) error {
	if context.Cause(ctx) == silent {
		return silent
	}
	return err
}
