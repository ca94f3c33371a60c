package backend

import (
	"errors"
	"fmt"
)

// errBusy sends a message back to come again later.
var errBusy = errors.New("too many messages at once")

// permanentError marks the failure of a message that will fail again.
type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// Permanent marks the error of a Handler: the message is bad and stays so. It fails, and does not come again.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// unavailableError marks a failure that has nothing to do with the message.
type unavailableError struct{ err error }

func (e *unavailableError) Error() string { return e.err.Error() }
func (e *unavailableError) Unwrap() error { return e.err }

// Unavailable marks the error of a Handler: the backend can take no message at present, whichever it is.
func Unavailable(err error) error {
	if err == nil {
		return nil
	}
	return &unavailableError{err}
}

// PanicError is the panic of a Handler. The server is told of the panic, not of its value: that may be a secret.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return "the handler panicked" }

// String is for logs.
func (e *PanicError) String() string { return fmt.Sprintf("panic: %v\n\n%s", e.Value, e.Stack) }
