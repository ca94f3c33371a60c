package agentconfig

import (
	"fmt"
	"io"

	"github.com/farspeak/farspeak/internal/config/textpb"
)

// CheckFiles does the work of --check_config: it writes all problems of the main file and of the configuration directory
// to w, a line each, and returns an error when one of them would keep the agent from starting.
func CheckFiles(w io.Writer, path string) error {
	problems := check(path)
	for _, p := range problems {
		if _, err := fmt.Fprintln(w, p.Error()); err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
	}
	if problems.Err() != nil {
		return fmt.Errorf("the configuration has %d problem(s)", len(problems)-len(problems.Warnings()))
	}
	_, err := fmt.Fprintf(w, "the configuration is valid, with %d warning(s)\n", len(problems))
	return err
}

func check(path string) textpb.Problems {
	c, err := Client(path)
	switch e := err.(type) {
	case nil:
	case textpb.Problems:
		return e
	case textpb.Problem:
		return textpb.Problems{e}
	default:
		return textpb.Problems{{File: path, Message: err.Error()}}
	}
	l := &loader{}
	if _, err := c.Communicator(); err != nil {
		l.warn(err)
	}
	_, services := c.Services()
	return textpb.Join(c.Warnings, l.problems, services)
}
