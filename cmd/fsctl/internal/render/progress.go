package render

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progressFrom is the amount of work from which on a bar is worth its line.
const progressFrom = 20

// Progress shows on a terminal how far long work has come, and elsewhere nothing.
type Progress struct {
	bar *progressbar.ProgressBar // nil shows nothing
}

// NewProgress begins to show work of total parts on out.
func NewProgress(out io.Writer, what string, total int) *Progress {
	file, ok := out.(*os.File)
	if !ok || total < progressFrom || !term.IsTerminal(int(file.Fd())) {
		return &Progress{}
	}
	return &Progress{progressbar.NewOptions(total,
		progressbar.OptionSetWriter(out),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)}
}

// Step counts one part as done.
func (p *Progress) Step() {
	if p.bar != nil {
		p.bar.Add(1) // a bar that cannot be drawn is no reason to stop the work
	}
}

// Close takes the bar away.
func (p *Progress) Close() {
	if p.bar != nil {
		p.bar.Clear()
	}
}
