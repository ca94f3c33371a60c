package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/farspeak/farspeak/internal/load"
	"github.com/farspeak/farspeak/internal/load/fleet"
)

// upload is one run of "up".
type upload struct {
	name, service string
	batch, window int
	rate          float64
	group         int   // messages that a service on the client hands over at once, at a rate
	bar           limit // of messages a second; none when 0
	latency       limit // of the p99 acknowledgement
}

func (b *bench) up(ctx context.Context) error {
	var errs []error
	for _, u := range []upload{
		{name: "up-noop-10", service: noopService, batch: 10, window: 4, bar: atLeast(40_000)},
		{name: "up-noop-1", service: noopService, batch: 1, window: 4},
		{name: "up-noop-rate", service: noopService, batch: 10, window: 1, rate: 20_000, group: 10, latency: atMost(50)},
		{name: "up-noop-rate-1", service: noopService, batch: 10, window: 1, rate: 20_000, group: 1, latency: atMost(50)},
		{name: "up-grpc-10", service: grpcService, batch: 10, window: 4, bar: atLeast(12_000)},
		{name: "up-grpc-rate", service: grpcService, batch: 10, window: 1, rate: 6_000, group: 10, latency: atMost(50)},
		{name: "up-grpc-rate-1", service: grpcService, batch: 10, window: 1, rate: 6_000, group: 1, latency: atMost(50)},
	} {
		if ctx.Err() != nil {
			break
		}
		errs = append(errs, b.fresh(ctx, 1), b.upload(ctx, u))
	}
	return errors.Join(errs...)
}

func (b *bench) upload(ctx context.Context, u upload) error {
	var backend *load.Backend
	if u.service == grpcService {
		var err error
		if backend, err = load.StartBackend(ctx, b.site.backend); err != nil {
			return err
		}
		defer backend.Close()
	}
	r, err := b.play(ctx, u.name, "send", 500, func(c load.Config) (*load.Result, error) {
		c.Job.Window = u.window
		return load.Up(ctx, load.UpConfig{
			Config: c, For: b.measure, Backend: backend,
			Sending: fleet.Sending{Service: u.service, Size: messageSize, Batch: u.batch, Rate: u.rate, Group: u.group},
		})
	})
	if r != nil {
		b.upFigures(u, r)
	}
	return err
}

func (b *bench) upFigures(u upload, r *load.Result) {
	compared := floor{"echo over TLS", b.floors.echo}
	if u.service == grpcService {
		compared = floor{"gRPC calls", b.floors.callsPerSecond}
	}
	extra := []any{compared}
	if u.bar.value > 0 {
		extra = append(extra, u.bar)
	}
	if u.rate > 0 {
		extra = []any{atLeast(0.99 * u.rate)}
	}
	text := "messages acknowledged"
	switch {
	case u.group > 1:
		text += fmt.Sprintf(", due in groups of %d a client", u.group)
	case u.group == 1:
		text += ", due one by one"
	}
	b.figure(u.name, r, "messages_per_second", text, "/s", extra...)
	if u.latency.value > 0 {
		b.figure(u.name, r, "ack_p50_ms", "due to acknowledged, p50", "ms")
		b.figure(u.name, r, "ack_p99_ms", "due to acknowledged, p99", "ms", u.latency)
	}
	b.figure(u.name, r, "messages_per_record", "messages in a record", "")
	b.figure(u.name, r, "fs-server_cpu_per_message", "fs-server CPU a message", "µs")
	b.figure(u.name, r, "statements_per_message", "statements a message", "", atMost(0.01))
	b.figure(u.name, r, "lost", "acknowledged and not arrived", "", atMost(0))
	b.figure(u.name, r, "duplicates", "arrived again", "", atMost(0))
}
