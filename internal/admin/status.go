package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/farspeak/farspeak/internal/batch"
	"github.com/farspeak/farspeak/internal/store"
)

// When a caller may try again.
const (
	retryStore = time.Second      // the store is being restarted, or another replica answers
	retryBusy  = time.Second      // calls under way have to end
	retryQueue = 10 * time.Second // a client or service has to take messages
)

// Errors of this package that are not about an argument.
var (
	errBusy          = errors.New("too many calls under way")
	errToken         = errors.New("a valid bearer token is needed")
	errReplyTooLarge = errors.New("the answer is too large: ask for less, or for a stream")
	errPanic         = errors.New("internal error; the log of fs-admin has the details")
)

// argumentError is a request that can never succeed.
type argumentError struct{ text string }

func (e *argumentError) Error() string { return e.text }

func invalid(format string, args ...any) error {
	return &argumentError{fmt.Sprintf(format, args...)}
}

// statusError turns any error of a call into one with a gRPC code. It is the one place that does. ctx is the call's.
//
// The original's callers treat every code alike and try again for a while; the codes are for those that look.
func statusError(ctx context.Context, err error) error {
	var coded interface{ GRPCStatus() *status.Status }
	if err == nil || errors.As(err, &coded) {
		return err
	}
	code, retry := classify(ctx, err)
	s := status.New(code, err.Error())
	if retry > 0 {
		if detailed, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(retry)}); err == nil {
			s = detailed
		}
	}
	return s.Err()
}

// classify finds the code of an error, and when to try again where that is known.
func classify(ctx context.Context, err error) (codes.Code, time.Duration) {
	var argument *argumentError
	is := func(target error) bool { return errors.Is(err, target) }
	ended := is(context.Canceled) || is(context.DeadlineExceeded)
	switch {
	case ended && ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Code(), 0
	case errors.As(err, &argument), is(store.ErrInvalid):
		return codes.InvalidArgument, 0
	case is(store.ErrUnknownClient), is(store.ErrNotFound):
		return codes.NotFound, 0
	case is(store.ErrConflict):
		return codes.AlreadyExists, 0
	case is(store.ErrQueueFull):
		return codes.ResourceExhausted, retryQueue
	case is(errBusy), is(batch.ErrFull):
		return codes.ResourceExhausted, retryBusy
	case is(errReplyTooLarge):
		return codes.ResourceExhausted, 0
	case is(errToken):
		return codes.Unauthenticated, 0
	case is(store.ErrSchema):
		return codes.FailedPrecondition, 0
	// A deadline that is not the caller's is one that we set for the store. A closed batcher means that we stop.
	case is(store.ErrUnavailable), is(batch.ErrClosed), ended:
		return codes.Unavailable, retryStore
	}
	return codes.Internal, 0
}
