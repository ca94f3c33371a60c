package backend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// firstPause is the longest pause after a first failure; it doubles with each further one, up to longestPause.
	firstPause   = 200 * time.Millisecond
	longestPause = 5 * time.Second
)

// finalCodes say that the same call can only fail again.
var finalCodes = []codes.Code{
	codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.OutOfRange,
	codes.Unimplemented, codes.Unauthenticated, codes.PermissionDenied, codes.DataLoss,
}

// retry calls try until it succeeds, fails for good, or ctx ends. The error has that of the last try in it.
func retry(ctx context.Context, try func() error) error {
	var last error
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		last = try()
		return struct{}{}, classify(ctx, last)
	}, backoff.WithBackOff(newPauses()), backoff.WithMaxElapsedTime(0)) // ctx has the deadline
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w; last try: %w", err, last)
	}
	return last
}

// newPauses returns pauses with full jitter: uniform between nothing and a bound that doubles.
func newPauses() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval:     firstPause / 2, // half the bound, and all of it as jitter to both sides
		RandomizationFactor: 1,
		Multiplier:          2,
		MaxInterval:         longestPause / 2,
	}
}

// classify tells the retry library what an error of a call means.
func classify(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	if slices.Contains(finalCodes, s.Code()) {
		return backoff.Permanent(err)
	}
	pause := hint(s)
	if pause == 0 {
		return err
	}
	pause += rand.N(pause/2 + 1) // callers that were refused together come back apart
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < pause {
		return backoff.Permanent(err) // in vain until then
	}
	return &backoff.RetryAfterError{Duration: pause}
}

// hint is when the server wants to be asked again, or 0.
func hint(s *status.Status) time.Duration {
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return max(0, info.GetRetryDelay().AsDuration())
		}
	}
	return 0
}
