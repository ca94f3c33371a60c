package services

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxReason bounds a failure reason in bytes, as the protocol has it.
const maxReason = 900

var (
	// errBudget is the cause with which the context of a Process call ends when its time is over.
	errBudget = errors.New("service took too long")
	// errCallerLeft says that a Process call ended because whoever wanted it has gone.
	errCallerLeft = errors.New("caller left")
	// errTooSlow says that a call ran out of time at a service that answers others.
	errTooSlow = errors.New("too slow")
	// errCircuitOpen says that a message was not handed to a service because the service is known to be unavailable.
	errCircuitOpen = errors.New("service is unavailable")
	// errNoSlot says that a message was not handed to a service because it had its fill for too long.
	errNoSlot = errors.New("service is busy")
	// errPanic is the reason of a message whose processing panicked.
	errPanic = errors.New("panic in service")
)

// permanentError marks the failure of a message that will fail again.
type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// Permanent returns err marked as a failure for good of the message at hand.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// IsPermanent reports whether err says that the message is bad and stays so.
func IsPermanent(err error) bool {
	_, is := errors.AsType[*permanentError](err)
	return is
}

// unavailableError marks a failure that has nothing to do with the message.
type unavailableError struct{ err error }

func (e *unavailableError) Error() string { return e.err.Error() }
func (e *unavailableError) Unwrap() error { return e.err }

// Unavailable returns err marked as the failure of a service that can take no message at present. Several in a row open
// the circuit of the service.
func Unavailable(err error) error {
	if err == nil {
		return nil
	}
	return &unavailableError{err}
}

// isUnavailable reports whether err counts against the circuit of a service.
func isUnavailable(err error) bool {
	if _, is := errors.AsType[*unavailableError](err); is {
		return true
	}
	return isTimeout(err)
}

// isTimeout reports whether err says that no answer came in time: by our clock, or by that of the peer.
func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errBudget) || status.Code(err) == codes.DeadlineExceeded
}

// unknownService is the failure of a message to a service that is not configured, in the original's words.
func unknownService(name string) error { return fmt.Errorf("unknown service %q", name) }

// reason returns the text of err as it may be stored: valid UTF-8 of at most maxReason bytes.
func reason(err error) string {
	text := strings.ToValidUTF8(err.Error(), "\uFFFD")
	if len(text) <= maxReason {
		return text
	}
	const ellipsis = "..."
	return cut(text, maxReason-len(ellipsis)) + ellipsis
}

// cut returns the longest prefix of text that has at most max bytes and ends between two characters.
func cut(text string, max int) string {
	if len(text) <= max {
		return text
	}
	for max > 0 && !utf8.RuneStart(text[max]) {
		max--
	}
	return text[:max]
}
