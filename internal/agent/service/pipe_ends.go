package service

import "os"

// pipeEnds are the pipes of a process that is about to be started. The first error stays; ends are nil from then on.
type pipeEnds struct {
	ours, theirs []*os.File
	err          error
}

// toProcess makes a pipe that the process reads from.
func (p *pipeEnds) toProcess() (theirs, ours *os.File) {
	r, w := p.pipe()
	p.keep(w, r)
	return r, w
}

// fromProcess makes a pipe that the process writes to.
func (p *pipeEnds) fromProcess() (ours, theirs *os.File) {
	r, w := p.pipe()
	p.keep(r, w)
	return r, w
}

func (p *pipeEnds) pipe() (r, w *os.File) {
	if p.err == nil {
		r, w, p.err = os.Pipe()
	}
	return r, w
}

func (p *pipeEnds) keep(ours, theirs *os.File) {
	p.ours, p.theirs = append(p.ours, ours), append(p.theirs, theirs)
}

// closeTheirs is called when the process has them, or will never have them.
func (p *pipeEnds) closeTheirs() { closeAll(p.theirs) }

func (p *pipeEnds) closeOurs() { closeAll(p.ours) }

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // a nil file is one that was not opened
	}
}
