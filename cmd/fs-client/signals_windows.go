package main

// dumpDirectory is where dumps go unless a flag says otherwise. Operators look for them there, whatever TEMP is.
const dumpDirectory = `C:\Windows\Temp`

// watchProfileSignal has nothing to watch: Windows has no such signal.
func (p *process) watchProfileSignal() (stop func()) { return func() {} }
