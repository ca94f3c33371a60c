package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"time"
)

// profileLength is how long CPU is profiled; a phase that is shorter is profiled beyond its end.
const profileLength = 8 * time.Second

// workerProfileFlag asks a worker for a profile of its whole life.
const workerProfileFlag = "-cpuprofile"

// profiles takes profiles of CPU and memory while one phase of a scenario runs, and of the load tool's processes: of this
// one, which submits and is the backend, in that phase, and of the one with the simulated clients from its beginning to its end.
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
	p.beside("cpu profile of the load tool", p.takeOwn)
}

// workerFlags are what a worker is started with. With several of them the last one that ends leaves the profile.
func (p *profiles) workerFlags() []string {
	if !p.bench.options.profiles {
		return nil
	}
	return []string{workerProfileFlag, p.path("load-clients", "cpu")}
}

func (p *profiles) takeBeside(process, address, kind, query string) {
	p.beside(kind+" profile of "+process, func() error { return p.take(process, address, kind, query) })
}

// beside does something that the scenario does not wait for.
func (p *profiles) beside(what string, take func() error) {
	p.taking.Go(func() {
		if err := take(); err != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.errs = append(p.errs, fmt.Errorf("%s: %w", what, err))
		}
	})
}

// path is where a profile goes.
func (p *profiles) path(process, kind string) string {
	return filepath.Join(p.bench.options.results, fmt.Sprintf("%s-%s-%s.pprof", p.name, process, kind))
}

// takeOwn takes one of this process.
func (p *profiles) takeOwn() error {
	path := p.path("load", "cpu")
	err := profiled(path, func() error {
		time.Sleep(profileLength)
		return nil
	})
	if err != nil {
		return err
	}
	return writeTop(path, "cpu")
}

// profiled takes a CPU profile while work is done; without a path it only does it.
func profiled(path string, work func() error) (err error) {
	if path == "" {
		return work()
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return work()
}

// wait returns when all profiles are written. The workers have ended by then.
func (p *profiles) wait() error {
	p.taking.Wait()
	if flags := p.workerFlags(); flags != nil {
		p.errs = append(p.errs, writeTop(flags[1], "cpu"))
	}
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
	path := p.path(process, kind)
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, response.Body)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return writeTop(path, kind)
}

// writeTop writes the top functions of a profile beside it.
func writeTop(path, kind string) error {
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
