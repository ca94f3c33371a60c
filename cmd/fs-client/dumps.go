package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/golang/glog"
)

// profileName is where a profile of a kind goes: directory, kind, process and time.
func (p *process) profileName(kind string) string {
	stamp := time.Now().Format("2006-01-02-15-04-05.000")
	return filepath.Join(p.options.profileDir, fmt.Sprintf("fleetspeakd-%s-pprof-%d-%s", kind, os.Getpid(), stamp))
}

// stallName makes a file for the goroutines of a hanging communicator.
func (p *process) stallName(kind string) (string, error) {
	f, err := os.CreateTemp(dumpDirectory, "fleetspeak-"+kind+"-traces-*")
	if err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

func (p *process) dumpGoroutines(path string) error {
	return writeFile(path, writeGoroutines)
}

// writeGoroutines writes the stacks of all goroutines.
func writeGoroutines(w io.Writer) {
	_ = pprof.Lookup("goroutine").WriteTo(w, 2) // nothing is left to do about an error
}

// dumpHeap writes a heap profile.
func (p *process) dumpHeap() {
	runtime.GC() // the profile shows what the last collection left
	path := p.profileName("heap")
	var profileErr error
	err := writeFile(path, func(w io.Writer) { profileErr = pprof.WriteHeapProfile(w) })
	if err != nil || profileErr != nil {
		glog.Errorf("heap profile %s: %v %v", path, err, profileErr)
		return
	}
	glog.Infof("heap profile written to %s", path)
}

func writeFile(path string, write func(io.Writer)) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	write(f)
	return f.Close()
}
