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

// profileLength bounds a profile; a phase that is shorter is profiled beyond its end.
const profileLength = 8 * time.Second

// profiles takes CPU profiles while one phase of a scenario runs.
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
	for process, address := range map[string]string{"fs-server": s.servers[0].stats, "fs-admin": s.adminStats} {
		p.taking.Go(func() {
			if err := p.take(process, address); err != nil {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.errs = append(p.errs, err)
			}
		})
	}
}

// wait returns when all profiles are written.
func (p *profiles) wait() error {
	p.taking.Wait()
	return errors.Join(p.errs...)
}

// take writes a profile and its top functions.
func (p *profiles) take(process, address string) error {
	client := &http.Client{Timeout: profileLength + 30*time.Second}
	response, err := client.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", address, int(profileLength.Seconds())))
	if err != nil {
		return fmt.Errorf("profile of %s: %w", process, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("profile of %s: %s", process, response.Status)
	}
	if err := os.MkdirAll(p.bench.options.results, 0o755); err != nil {
		return err
	}
	path := filepath.Join(p.bench.options.results, p.name+"-"+process+".pprof")
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, response.Body)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("profile of %s: %w", process, err)
	}
	top, err := exec.Command("go", "tool", "pprof", "-top", "-cum", "-nodecount=60", path).Output()
	if err != nil {
		return fmt.Errorf("profile of %s: %w", process, err)
	}
	return os.WriteFile(path+".txt", top, 0o644)
}
