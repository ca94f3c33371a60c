package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// profileLength is how long CPU is profiled; a phase that is shorter is profiled beyond its end.
const profileLength = 8 * time.Second

// profiles takes profiles of CPU and memory while one phase of a scenario runs.
type profiles struct {
	bench       *bench
	name, phase string
	taking      sync.WaitGroup

	mu   sync.Mutex
	errs []error // guarded by mu
}

func (b *bench) newProfiles(name, phase string) *profiles {
	return &profiles{bench: b, name: name, phase: phase}
}

// begin is told of each phase.
func (p *profiles) begin(phase string) {
	if !p.bench.options.profiles || phase != p.phase {
		return
	}
	s := p.bench.site
	cpu := fmt.Sprintf("profile?seconds=%d", int(profileLength.Seconds()))
	p.takeBeside("fs-server", s.servers[0].stats, "cpu", cpu)
	p.takeBeside("fs-server", s.servers[0].stats, "heap", "heap?gc=1")
	p.takeBeside("fs-admin", s.adminStats, "cpu", cpu)
}

func (p *profiles) takeBeside(process, address, kind, query string) {
	p.taking.Go(func() {
		if err := p.take(process, address, kind, query); err != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.errs = append(p.errs, fmt.Errorf("%s profile of %s: %w", kind, process, err))
		}
	})
}

// wait returns when all profiles are written.
func (p *profiles) wait() error {
	p.taking.Wait()
	return errors.Join(p.errs...)
}

// take writes a profile and its top functions.
func (p *profiles) take(process, address, kind, query string) error {
	client := &http.Client{Timeout: profileLength + 30*time.Second}
	response, err := client.Get("http://" + address + "/debug/pprof/" + query)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	if err := os.MkdirAll(p.bench.options.results, 0o755); err != nil {
		return err
	}
	path := filepath.Join(p.bench.options.results, fmt.Sprintf("%s-%s-%s.pprof", p.name, process, kind))
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, response.Body)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	order := "-cum" // CPU by what calls, memory by what allocates
	if kind == "heap" {
		order = "-flat"
	}
	top, err := exec.Command("go", "tool", "pprof", "-top", order, "-nodecount=60", path).Output()
	if err != nil {
		return err
	}
	return os.WriteFile(path+".txt", top, 0o644)
}
