package main

import (
	"context"
	"errors"
	"fmt"
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

// growthRounds is how often the empty and the full database are measured, in turn. What is compared are the means: the machine
// itself does not do the same from minute to minute to a tenth.
const growthRounds = 2

// rounds are the results of scenarios, by their names, of each round.
type rounds map[string][]*load.Result

// mean is that of a figure; ok is false when there is none.
func (r rounds) mean(scenario, figure string) (mean float64, ok bool) {
	results := r[scenario]
	for _, result := range results {
		value, ok := result.Figure(figure)
		if !ok {
			return 0, false
		}
		mean += value / float64(len(results))
	}
	return mean, mean > 0
}

// growth measures the same on an empty and on a full database, and then with two fs-servers.
func (b *bench) growth(ctx context.Context) error {
	empty, full := make(rounds), make(rounds)
	keys := b.keys
	defer func() { b.keys = keys }()
	var err error
	var filled string // data source name of the full database
	for round := 1; round <= growthRounds && err == nil; round++ {
		b.keys = fmt.Sprintf("%s-%d", keys, round) // clients that the full database does not know from the round before
		if err = b.fresh(ctx, 1); err == nil {
			err = b.measureAll(ctx, fmt.Sprintf("growth-empty-%d", round), empty)
		}
		if err == nil {
			filled, err = b.startFull(ctx, filled)
		}
		if err == nil {
			err = b.measureAll(ctx, fmt.Sprintf("growth-full-%d", round), full)
		}
	}
	b.compare("full database", empty, full)
	if ctx.Err() != nil {
		return err
	}
	return errors.Join(err, b.twoServers(ctx, empty))
}

// startFull starts the installation on the full database. It is made at the first time, when its data source name is not known.
func (b *bench) startFull(ctx context.Context, filled string) (dsn string, err error) {
	if err := b.site.stopDaemons(); err != nil {
		return "", err
	}
	if filled != "" {
		b.site.dsn = filled
		return filled, b.startDaemons(ctx, 1)
	}
	if err := b.site.freshDatabase(ctx); err != nil {
		return "", err
	}
	if err := b.fill(ctx); err != nil {
		return "", err
	}
	return b.site.dsn, b.startDaemons(ctx, 1)
}

// measureAll runs the scenarios of compared.
func (b *bench) measureAll(ctx context.Context, name string, measured rounds) error {
	var errs []error
	keep := func(scenario string, clients int, play func(load.Config) (*load.Result, error)) {
		if ctx.Err() != nil {
			return
		}
		r, err := b.play(ctx, name+"-"+scenario, "", clients, play)
		if r != nil {
			measured[scenario] = append(measured[scenario], r)
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
	return errors.Join(errs...)
}

// compare adds a row for each figure: how much worse it is than on an empty database.
func (b *bench) compare(what string, empty, full rounds) {
	for _, c := range compared {
		before, ok1 := empty.mean(c.scenario, c.figure)
		after, ok2 := full.mean(c.scenario, c.figure)
		if !ok1 || !ok2 {
			continue
		}
		worse := after / before
		if strings.HasSuffix(c.figure, "_per_second") {
			worse = before / after
		}
		b.add("growth", c.text+", "+what+" to empty", worse, "×", atMost(growthLimit))
	}
}

// twoServers compares what a session costs on one of two fs-servers with what it costs on the only one. Each has as many.
func (b *bench) twoServers(ctx context.Context, one rounds) error {
	if err := b.fresh(ctx, 2); err != nil {
		return err
	}
	r, err := b.play(ctx, "two-servers-hold", "", 20_000, func(c load.Config) (*load.Result, error) {
		return load.Hold(ctx, load.HoldConfig{Config: c, For: b.measure})
	})
	if r == nil {
		return err
	}
	ratio := func(text string, two float64, figure string) {
		if alone, ok := one.mean("hold", figure); ok {
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
