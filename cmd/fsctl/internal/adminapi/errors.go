package adminapi

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Explain turns the error of a call into one for people. It wraps the original. Other errors, and nil, pass unchanged.
func (c *Client) Explain(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	return &explained{cause: err, text: c.text(s)}
}

func (c *Client) text(s *status.Status) string {
	switch s.Code() {
	case codes.Unavailable:
		return fmt.Sprintf("cannot reach fs-admin at %s: is it running? Use --admin for another address (%s)", c.address, s.Message())
	case codes.DeadlineExceeded:
		return fmt.Sprintf("fs-admin at %s did not answer within %v: use --timeout to wait longer", c.address, c.timeout)
	case codes.Unauthenticated:
		return fmt.Sprintf("fs-admin at %s wants to know who calls: use --token_file (%s)", c.address, s.Message())
	case codes.PermissionDenied:
		return fmt.Sprintf("fs-admin at %s does not allow this: %s", c.address, s.Message())
	case codes.Unimplemented:
		return fmt.Sprintf("the daemon at %s does not know this call: is it an fs-admin? (%s)", c.address, s.Message())
	case codes.ResourceExhausted:
		return "fs-admin has no room for this: " + s.Message()
	case codes.Canceled:
		return "interrupted"
	}
	return s.Message()
}

// explained carries a text of its own and the error it is about.
type explained struct {
	cause error
	text  string
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.cause }

// Is reports whether the daemon answered with code.
func Is(err error, code codes.Code) bool {
	var s interface{ GRPCStatus() *status.Status }
	return errors.As(err, &s) && s.GRPCStatus().Code() == code
}

// IsFatal reports whether a call failed for a reason that would fail each further call too.
func IsFatal(err error) bool {
	return Is(err, codes.Unavailable) || Is(err, codes.Unauthenticated) || Is(err, codes.Unimplemented) || Is(err, codes.Canceled)
}
