package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/farspeak/farspeak/internal/load"
	"github.com/farspeak/farspeak/internal/load/fleet"
	"github.com/farspeak/farspeak/internal/load/measure"
)

// bench is one run of the benchmark.
type bench struct {
	options
	site    *site
	keys    string
	floors  floors
	rows    []row
	results []named
}

// named is the whole result of one scenario.
type named struct {
	Name   string       `json:"name"`
	Result *load.Result `json:"result"`
}

// part is something that can be run by itself.
type part struct {
	name, about string
	run         func(*bench, context.Context) error
}

// parts in the order in which they run. The floors come first: the others are compared with them.
var parts = []part{
	{"floors", "what the machine does without a fabric", (*bench).measureFloors},
	{"idle", "memory and CPU of idle sessions", (*bench).idle},
	{"connect", "new clients, and known ones that come again", (*bench).connect},
	{"up", "messages of clients into a NOOP service and into a gRPC backend", (*bench).up},
	{"down", "messages to clients, as many as go, and at 200 a second", (*bench).down},
	{"broadcast", "one message to all", (*bench).broadcast},
	{"storm", "fs-server killed and started again", (*bench).storm},
	{"mix", "a fleet's day in two minutes", (*bench).mix},
	{"agent", "what an fs-client costs its machine that has a session, three services, and nothing to do", (*bench).agentFootprint},
	{"growth", "the same with a full database, and with two fs-servers", (*bench).growth},
}

func partNames() []string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

// choose picks the parts to run. The floors run whenever something is measured.
func choose(only, skip string) ([]part, error) {
	list := func(text string) []string {
		return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
	}
	for _, name := range append(list(only), list(skip)...) {
		if !slices.Contains(partNames(), name) {
			return nil, fmt.Errorf("there is no part %q; there are %s", name, strings.Join(partNames(), ", "))
		}
	}
	var chosen []part
	for _, p := range parts {
		wanted := only == "" || slices.Contains(list(only), p.name)
		if wanted && !slices.Contains(list(skip), p.name) {
			chosen = append(chosen, p)
		}
	}
	if len(chosen) == 0 {
		return nil, errors.New("no part is left to run")
	}
	return chosen, nil
}

// runParts runs parts one after the other. One that fails does not stop the others.
func (b *bench) runParts(ctx context.Context, chosen []part) error {
	var errs []error
	for _, p := range chosen {
		if ctx.Err() != nil {
			break
		}
		fmt.Fprintf(os.Stderr, "== %s: %s\n", p.name, p.about)
		began := time.Now()
		err := p.run(b, ctx)
		if err = errors.Join(err, b.site.stopDaemons()); err != nil && ctx.Err() == nil {
			errs = append(errs, fmt.Errorf("part %s: %w", p.name, err))
			fmt.Fprintln(os.Stderr, "bench:", errs[len(errs)-1])
		}
		fmt.Fprintf(os.Stderr, "   %v\n", time.Since(began).Round(time.Second))
	}
	printTable(os.Stdout, b.rows)
	b.warnOfOthers(os.Stdout)
	return errors.Join(append(errs, b.save())...)
}

// fresh starts the installation anew on an empty database, with some fs-servers.
func (b *bench) fresh(ctx context.Context, servers int) error {
	if err := b.site.stopDaemons(); err != nil {
		return err
	}
	if err := b.site.freshDatabase(ctx); err != nil {
		return err
	}
	return b.startDaemons(ctx, servers)
}

func (b *bench) startDaemons(ctx context.Context, servers int) error {
	for i := range servers {
		name := "fs-server"
		if i > 0 {
			name = fmt.Sprintf("fs-server-%d", i+1)
		}
		if _, err := b.site.startServer(ctx, name); err != nil {
			return err
		}
	}
	return b.site.startAdmin(ctx)
}

// clients scales a number of clients.
func (b *bench) clients(n int) int { return max(10, int(float64(n)*b.scale)) }

// config is what all scenarios have in common.
func (b *bench) config(ctx context.Context, clients int) (load.Config, func(), error) {
	database, err := measure.OpenDatabase(ctx, b.site.dsn)
	if err != nil {
		return load.Config{}, nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return load.Config{}, nil, err
	}
	c := load.Config{
		Job: fleet.Job{
			TrustedCerts: b.site.certificates.certificate, KeyFile: b.keys, Labels: []string{"load"}, Dials: 128,
		},
		Clients:  b.clients(clients),
		Command:  []string{program, workerFlag},
		Admins:   b.site.admins(),
		Watch:    map[string]int{"fs-admin": b.site.admin.pid(), "mariadbd": b.site.database.PID()},
		Database: database,
	}
	for _, v := range b.site.servers {
		c.Job.Servers = append(c.Job.Servers, v.clients)
		c.Watch[v.name] = v.pid()
	}
	return c, func() { database.Close() }, nil
}

// play runs a scenario, keeps its result, and takes profiles in one of its phases when they are wanted.
func (b *bench) play(ctx context.Context, name, phase string, clients int, scenario func(load.Config) (*load.Result, error)) (*load.Result, error) {
	c, done, err := b.config(ctx, clients)
	if err != nil {
		return nil, err
	}
	defer done()
	fmt.Fprintf(os.Stderr, "   %s\n", name)
	syscall.Sync() // what was written before, programs for instance: the kernel would do so half a minute later, beside what is measured
	profiles := b.newProfiles(name, phase)
	c.Phase = profiles.begin
	c.Command = append(c.Command, profiles.workerFlags()...)
	r, err := scenario(c)
	err = errors.Join(err, profiles.wait())
	if r == nil {
		return nil, err
	}
	b.results = append(b.results, named{name, r})
	if r.Interrupted {
		return r, context.Cause(ctx)
	}
	if r.Problem != "" {
		err = errors.Join(err, fmt.Errorf("%s: %s", name, r.Problem))
	}
	return r, err
}

// quiet is how many cores may be used by other processes, or other machines, before the table says so.
const quiet = 0.1

// warnOfOthers says when the machine was not there for the benchmark alone.
func (b *bench) warnOfOthers(out io.Writer) {
	others, stolen := 0.0, 0.0
	for _, r := range b.results {
		others, stolen = max(others, r.Result.Others), max(stolen, r.Result.Stolen)
	}
	warn := func(who string, cores float64) {
		if cores > quiet {
			fmt.Fprintf(out, "\n%s up to %s of %d cores meanwhile: rates and times are worse than they would be.\n",
				who, number(cores), runtime.NumCPU())
		}
	}
	warn("Other processes used", others)
	warn("The host of this virtual machine gave others", stolen)
}

// record is what is written at the end.
type record struct {
	Time    time.Time `json:"time"`
	Machine machine   `json:"machine"`
	Scale   float64   `json:"scale"`
	Rows    []row     `json:"rows"`
	Results []named   `json:"results"`
}

// machine says where it was measured.
type machine struct {
	Model    string `json:"model"`
	Cores    int    `json:"cores"`
	Memory   string `json:"memory"`
	Kernel   string `json:"kernel"`
	Go       string `json:"go"`
	Database string `json:"database"`
}

func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	m.Model = procField("/proc/cpuinfo", "model name")
	m.Memory = procField("/proc/meminfo", "MemTotal")
	if out, err := exec.Command("uname", "-r").Output(); err == nil {
		m.Kernel = strings.TrimSpace(string(out))
	}
	if out, err := exec.Command("mariadbd", "--version").Output(); err == nil {
		m.Database = strings.TrimSpace(string(out))
	}
	return m
}

// procField is the value of the first line that has a name.
func procField(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// save writes everything as JSON.
func (b *bench) save() error {
	if err := os.MkdirAll(b.options.results, 0o755); err != nil {
		return err
	}
	now := time.Now()
	text, err := json.MarshalIndent(record{now, thisMachine(), b.scale, b.rows, b.results}, "", " ")
	if err != nil {
		return err
	}
	path := filepath.Join(b.options.results, now.UTC().Format("20060102-150405")+".json")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(os.Stdout, "\nEverything that was measured is in %s.\n", path)
	return err
}
