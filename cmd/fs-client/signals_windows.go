package main

// watchProfileSignal has nothing to watch: Windows has no such signal.
func (p *process) watchProfileSignal() (stop func()) { return func() {} }
