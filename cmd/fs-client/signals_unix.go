//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// dumpDirectory is where dumps go unless a flag says otherwise. Operators look for them there, whatever TMPDIR is.
const dumpDirectory = "/tmp"

// watchProfileSignal writes a heap profile for each SIGUSR1, until the function that it returns is called.
func (p *process) watchProfileSignal() (stop func()) {
	signals, quit, done := make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
	signal.Notify(signals, syscall.SIGUSR1)
	go func() {
		defer close(done)
		for {
			select {
			case <-signals:
				p.dumpHeap()
			case <-quit:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(quit)
		<-done
	}
}
