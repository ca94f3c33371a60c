package render

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// Status is a line on a terminal that is written over again and again; elsewhere it is nothing.
type Status struct {
	out   *os.File // nil shows nothing
	shown bool
}

// NewStatus returns a line on out.
func NewStatus(out io.Writer) *Status {
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return &Status{}
	}
	return &Status{out: file}
}

// Show replaces the line. What does not fit into the terminal's width is cut off.
func (s *Status) Show(text string) {
	if s.out == nil {
		return
	}
	if width, _, err := term.GetSize(int(s.out.Fd())); err == nil && width > 1 && len(text) >= width {
		text = text[:width-1]
	}
	fmt.Fprintf(s.out, "\r\033[K%s", text)
	s.shown = true
}

// Close takes the line away.
func (s *Status) Close() {
	if s.shown {
		fmt.Fprint(s.out, "\r\033[K")
	}
}
