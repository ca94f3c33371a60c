package main

import (
	"context"
	"errors"
	"strings"

	"github.com/farspeak/farspeak/internal/load"
	"github.com/farspeak/farspeak/internal/load/fleet"
)

// growthLimit is how much a figure may get worse by what has piled up: its ratio to that of an empty database.
const growthLimit = 1.10

// compared are the figures that are compared, by scenario. Those that end in _per_second are better when they are higher.
var compared = []struct {
	scenario, figure, text string
}{
	{"hold", "connects_per_second", "new clients a second"},
	{"hold", "fs-server_cpu_per_connect", "fs-server CPU for a new client"},
	{"hold", "statements_per_connect", "statements for a new client"},
	{"hold", "mariadbd_cpu_per_connect", "mariadbd CPU for a new client"},
	{"hold", "fs-server_kib_per_session_after_idle", "fs-server memory a session"},
	{"up", "messages_per_second", "messages into a NOOP service a second"},
	{"up", "fs-server_cpu_per_message", "fs-server CPU for a message of a client"},
	{"down", "messages_per_second", "messages to clients a second"},
	{"down", "statements_per_message", "statements for a message to a client"},
	{"down", "mariadbd_cpu_per_message", "mariadbd CPU for a message to a client"},
	{"down-rate", "arrival_p50_ms", "submit to arrival at 200/s, p50"},
	{"down-rate", "arrival_p99_ms", "submit to arrival at 200/s, p99"},
}

// growth measures the same on an empty and on a full database, and then with two fs-servers.
func (b *bench) growth(ctx context.Context) error {
	if err := b.fresh(ctx, 1); err != nil {
		return err
	}
	empty, err := b.measureAll(ctx, "growth-empty")
	if err != nil {
		return err
	}
	if err := b.site.stopDaemons(); err != nil {
		return err
	}
	if err := b.fill(ctx); err != nil {
		return err
	}
	if err := b.startDaemons(ctx, 1); err != nil {
		return err
	}
	full, err := b.measureAll(ctx, "growth-full")
	b.compare("full database", empty, full)
	if err != nil {
		return err
	}
	return b.twoServers(ctx, empty["hold"])
}

// measureAll runs the scenarios of compared.
func (b *bench) measureAll(ctx context.Context, name string) (map[string]*load.Result, error) {
	measured := make(map[string]*load.Result)
	var errs []error
	keep := func(scenario string, clients int, play func(load.Config) (*load.Result, error)) {
		r, err := b.play(ctx, name+"-"+scenario, "", clients, play)
		if r != nil {
			measured[scenario] = r
		}
		errs = append(errs, err)
	}
	keep("hold", 10_000, func(c load.Config) (*load.Result, error) {
		return load.Hold(ctx, load.HoldConfig{Config: c, For: b.measure})
	})
	keep("up", 500, func(c load.Config) (*load.Result, error) {
		c.Job.Window = 4
		return load.Up(ctx, load.UpConfig{Config: c, For: b.measure, Sending: fleet.Sending{Service: noopService, Size: messageSize, Batch: 10}})
	})
	keep("down", 500, func(c load.Config) (*load.Result, error) {
		return load.Down(ctx, load.DownConfig{Config: c, Size: messageSize, Submitters: 64, For: b.measure})
	})
	keep("down-rate", 500, func(c load.Config) (*load.Result, error) {
		return load.Down(ctx, load.DownConfig{Config: c, Size: messageSize, Rate: 200, For: b.measure})
	})
	return measured, errors.Join(errs...)
}

// compare adds a row for each figure: how much worse it is than on an empty database.
func (b *bench) compare(what string, empty, full map[string]*load.Result) {
	for _, c := range compared {
		if empty[c.scenario] == nil || full[c.scenario] == nil {
			continue
		}
		before, ok1 := empty[c.scenario].Figure(c.figure)
		after, ok2 := full[c.scenario].Figure(c.figure)
		if !ok1 || !ok2 || before == 0 || after == 0 {
			continue
		}
		worse := after / before
		if strings.HasSuffix(c.figure, "_per_second") {
			worse = before / after
		}
		b.add("growth", c.text+", "+what+" to empty", worse, "×", atMost(growthLimit))
	}
}

// twoServers compares what a session costs on one of two fs-servers with what it costs on the only one.
func (b *bench) twoServers(ctx context.Context, one *load.Result) error {
	if err := b.fresh(ctx, 2); err != nil {
		return err
	}
	r, err := b.play(ctx, "two-servers-hold", "", 10_000, func(c load.Config) (*load.Result, error) {
		return load.Hold(ctx, load.HoldConfig{Config: c, For: b.measure})
	})
	if r == nil || one == nil {
		return err
	}
	ratio := func(text string, two float64, figure string) {
		if alone, ok := one.Figure(figure); ok && alone > 0 {
			b.add("growth", text+", two fs-servers to one", two/alone, "×", atMost(growthLimit))
		}
	}
	first, _ := r.Figure("fs-server_kib_per_session_after_idle")
	second, _ := r.Figure("fs-server-2_kib_per_session_after_idle")
	ratio("fs-server memory a session", (first+second)/2, "fs-server_kib_per_session_after_idle")
	first, _ = r.Figure("fs-server_cpu_per_connect")
	second, _ = r.Figure("fs-server-2_cpu_per_connect")
	ratio("fs-server CPU for a new client", first+second, "fs-server_cpu_per_connect")
	statements, _ := r.Figure("statements_per_connect")
	ratio("statements for a new client", statements, "statements_per_connect")
	return err
}
