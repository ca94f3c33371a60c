package main

import (
	"context"
	"errors"
	"time"

	"github.com/farspeak/farspeak/internal/load"
	"github.com/farspeak/farspeak/internal/load/fleet"
)

// messageSize is the size of each payload, in bytes.
const messageSize = 200

// floors are what the machine does without a fabric.
type floors struct {
	goroutineKiB, bareKiB  float64
	handshakes             handshakeFloors
	echo                   float64
	callsPerSecond, callMS float64
	database               databaseFloors
}

func (b *bench) measureFloors(ctx context.Context) (err error) {
	f := &b.floors
	if f.goroutineKiB, err = b.connectionMemory(ctx, floorHold); err != nil {
		return err
	}
	if f.bareKiB, err = b.connectionMemory(ctx, floorBare); err != nil {
		return err
	}
	if f.handshakes, err = b.handshakes(ctx); err != nil {
		return err
	}
	if f.echo, err = b.echoRate(ctx); err != nil {
		return err
	}
	if f.callsPerSecond, f.callMS, err = b.callRate(ctx); err != nil {
		return err
	}
	if f.database, err = b.databaseFloors(ctx); err != nil {
		return err
	}
	const part = "floors"
	b.add(part, "mutual-TLS connection with a goroutine", f.goroutineKiB, "KiB")
	b.add(part, "mutual-TLS connection without one", f.bareKiB, "KiB")
	for _, kind := range []struct {
		name string
		handshake
	}{{"full", f.handshakes.full}, {"resumed", f.handshakes.resumed}, {"light resumed", f.handshakes.light}} {
		b.add(part, kind.name+" handshake, server CPU", kind.cpuMS, "ms")
		b.add(part, kind.name+" handshakes, both ends here", kind.perSecond, "/s")
	}
	b.add(part, "messages over mutual TLS, ten in a record, echoed", f.echo, "/s")
	b.add(part, "unary gRPC calls", f.callsPerSecond, "/s")
	b.add(part, "one unary gRPC call alone", f.callMS, "ms")
	b.add(part, "durable inserts, one row each", f.database.single, "/s")
	b.add(part, "durable inserts, 100 rows each", f.database.batched, "/s")
	b.add(part, "one durable insert alone", f.database.commitMS, "ms")
	b.add(part, "one durable insert alone, p99", f.database.commitP99, "ms")
	return nil
}

func (b *bench) idle(ctx context.Context) error {
	const part = "idle"
	if err := b.fresh(ctx, 1); err != nil {
		return err
	}
	// What the daemons do every few minutes is in a long hold, so it has to be in the time before, too.
	before := max(2*b.measure, b.hold/12)
	r, err := b.play(ctx, part, "idle", 15_000, func(c load.Config) (*load.Result, error) {
		c.Settle = 5 * time.Second
		return load.Hold(ctx, load.HoldConfig{
			Config: c, Before: before, For: b.hold, Work: b.measure, Sending: fleet.Sending{Service: noopService, Size: messageSize, Batch: 1},
		})
	})
	if r != nil {
		with, without := floor{"bare TLS, goroutine", b.floors.goroutineKiB}, floor{"bare TLS, no goroutine", b.floors.bareKiB}
		b.figure(part, r, "fs-server_kib_per_session_after_ramp", "fs-server memory a session, after the ramp", "KiB", atMost(16), without)
		b.figure(part, r, "fs-server_kib_per_session_after_work", "the same, after all sent messages", "KiB", with)
		b.figure(part, r, "fs-server_kib_per_session_after_idle", "the same, "+b.hold.String()+" later", "KiB", atMost(16), without)
		b.figure(part, r, "fs-server_cpu_per_1000_idle_minutes", "fs-server CPU for 1,000 sessions and minute", "s", atMost(0.01))
		// The daemons' heartbeats and sweeps do not depend on sessions. Which of them fall into a minute is chance.
		b.figure(part, r, "more_statements_per_1000_idle_minutes", "statements that 1,000 sessions and minute add", "", atMost(0.5))
		b.figure(part, r, "statements_per_1000_idle_minutes", "the same, with those that come without any session", "")
		b.figure(part, r, "idle_lost", "sessions lost", "", atMost(0))
		b.figure(part, r, "load_kib_per_session_after_ramp", "load tool's memory a client", "KiB", atMost(25))
	}
	return err
}

func (b *bench) connect(ctx context.Context) error {
	const part = "connect"
	if err := b.fresh(ctx, 1); err != nil {
		return err
	}
	r, err := b.play(ctx, part, part, 15_000, func(c load.Config) (*load.Result, error) {
		c.Job.Resume = true
		return load.Hold(ctx, load.HoldConfig{Config: c, Reconnect: true, For: time.Second})
	})
	if r != nil {
		b.connectFigures(part, r)
	}
	return errors.Join(err, b.connectClassic(ctx))
}

// connectClassic shows what agents cost that agree keys as the original's do.
func (b *bench) connectClassic(ctx context.Context) error {
	const part = "connect-classic"
	if err := b.fresh(ctx, 1); err != nil {
		return err
	}
	r, err := b.play(ctx, part, "", 5_000, func(c load.Config) (*load.Result, error) {
		c.Job.Classic = true
		return load.Hold(ctx, load.HoldConfig{Config: c, For: time.Second})
	})
	if r != nil {
		b.figure(part, r, "connects_per_second", "new clients without ML-KEM, as the original's agents", "/s")
		b.figure(part, r, "fs-server_cpu_per_connect", "fs-server CPU for one", "ms")
		b.figure(part, r, "load_cpu_per_connect", "load tool's CPU for one", "ms")
	}
	return err
}

func (b *bench) connectFigures(part string, r *load.Result) {
	b.figure(part, r, "connects_per_second", "new clients", "/s", atLeast(1500), floor{"bare handshakes", b.floors.handshakes.full.perSecond})
	b.figure(part, r, "fs-server_cpu_per_connect", "fs-server CPU for a new client", "ms", atMost(0.6),
		floor{"full handshake", b.floors.handshakes.full.cpuMS})
	b.figure(part, r, "statements_per_connect", "statements for a new client", "", atMost(0.5))
	b.figure(part, r, "load_cpu_per_connect", "load tool's CPU for a new client", "ms")
	b.figure(part, r, "mariadbd_cpu_per_connect", "mariadbd CPU for a new client", "ms")
	b.figure(part, r, "reconnects_per_second", "known clients", "/s", floor{"light handshakes", b.floors.handshakes.light.perSecond})
	b.figure(part, r, "resumed_share", "of them with a resumed TLS session", "%")
	b.figure(part, r, "fs-server_cpu_per_reconnect", "fs-server CPU for a known client", "ms", atMost(0.4),
		floor{"light handshake", b.floors.handshakes.light.cpuMS})
	b.figure(part, r, "statements_per_reconnect", "statements for a known client", "", atMost(0.5))
}

func (b *bench) down(ctx context.Context) error {
	if err := b.fresh(ctx, 1); err != nil {
		return err
	}
	return errors.Join(b.downClosed(ctx, "down"), b.downOpen(ctx, "down-rate"))
}

func (b *bench) downClosed(ctx context.Context, part string) error {
	r, err := b.play(ctx, part, "deliver", 500, func(c load.Config) (*load.Result, error) {
		return load.Down(ctx, load.DownConfig{Config: c, Size: messageSize, Submitters: 64, For: b.measure})
	})
	if r != nil {
		b.figure(part, r, "messages_per_second", "messages delivered and acknowledged", "/s", atLeast(6000), floor{"single-row inserts", b.floors.database.single})
		b.figure(part, r, "statements_per_message", "statements a message", "", atMost(0.5))
		b.figure(part, r, "arrival_p50_ms", "submit to arrival, p50", "ms")
		b.figure(part, r, "arrival_p99_ms", "submit to arrival, p99", "ms")
		for _, process := range []string{"fs-server", "fs-admin", "mariadbd", "load"} {
			b.figure(part, r, process+"_cpu_per_message", process+" CPU a message", "µs")
		}
		b.proof(part, r)
	}
	return err
}

func (b *bench) downOpen(ctx context.Context, part string) error {
	r, err := b.play(ctx, part, "deliver", 500, func(c load.Config) (*load.Result, error) {
		return load.Down(ctx, load.DownConfig{Config: c, Size: messageSize, Rate: 200, For: 2 * b.measure})
	})
	if r != nil {
		alone := floor{"a gRPC call and a commit", b.floors.callMS + b.floors.database.commitMS}
		b.figure(part, r, "messages_per_second", "messages delivered and acknowledged", "/s", atLeast(190))
		b.figure(part, r, "arrival_p50_ms", "submit to arrival, p50", "ms", atMost(2.5), alone)
		b.figure(part, r, "arrival_p99_ms", "submit to arrival, p99", "ms", atMost(10), floor{"a commit, p99", b.floors.database.commitP99})
		b.figure(part, r, "statements_per_message", "statements a message", "")
		b.proof(part, r)
	}
	return err
}

// proof shows what became of all messages.
func (b *bench) proof(part string, r *load.Result) {
	b.figure(part, r, "late", "arrived late", "", atMost(0))
	b.figure(part, r, "lost", "accepted and not arrived", "", atMost(0))
	b.figure(part, r, "duplicates", "arrived again", "", atMost(0))
}

func (b *bench) broadcast(ctx context.Context) error {
	const part = "broadcast"
	if err := b.fresh(ctx, 1); err != nil {
		return err
	}
	r, err := b.play(ctx, part, part, 15_000, func(c load.Config) (*load.Result, error) {
		return load.Broadcast(ctx, load.BroadcastConfig{Config: c, Size: messageSize, For: 2 * time.Minute})
	})
	if r != nil {
		inserts := floor{"batched inserts", float64(b.clients(15_000)) / max(1, b.floors.database.batched)}
		b.figure(part, r, "seconds_to_50_percent", "until half have it", "s")
		b.figure(part, r, "seconds_to_99_percent", "until 99 % have it", "s")
		b.figure(part, r, "seconds_to_100_percent", "until all have it", "s", atMost(3), inserts)
		b.figure(part, r, "seconds_to_acks", "until all acknowledged it", "s")
		b.figure(part, r, "missing", "clients without it", "", atMost(0))
		b.figure(part, r, "duplicates", "arrived again", "", atMost(0))
		b.figure(part, r, "statements_per_client", "statements a client", "")
		b.figure(part, r, "fs-server_cpu_per_client", "fs-server CPU a client", "µs")
	}
	return err
}

func (b *bench) storm(ctx context.Context) error {
	const part = "storm"
	if err := b.fresh(ctx, 1); err != nil {
		return err
	}
	v := b.site.servers[0]
	r, err := b.play(ctx, part, "", 15_000, func(c load.Config) (*load.Result, error) { // a profile would die with the server
		c.Job.Resume = true
		return load.Storm(ctx, load.StormConfig{
			Config: c, Rate: 50, Size: messageSize, For: 2 * time.Minute,
			Restart: func(ctx context.Context) (int, error) {
				v.kill()
				pause(ctx, time.Second)
				err := b.site.run(ctx, v)
				if err != nil {
					return 0, err
				}
				return v.pid(), nil
			},
		})
	})
	if r != nil {
		cpu := float64(b.clients(15_000)) / max(1, b.floors.handshakes.light.perSecond)
		b.figure(part, r, "seconds_to_99_percent", "99 % back after the server's return", "s")
		b.figure(part, r, "seconds_to_all", "all back after the server's return", "s", atMost(10), floor{"light handshakes", cpu})
		b.figure(part, r, "peak_mib", "largest memory of fs-server", "MiB")
		b.figure(part, r, "resumed_share", "reconnects with a resumed TLS session", "%")
		b.figure(part, r, "failed_dials", "failed dials a client", "")
		b.figure(part, r, "lost", "accepted and not arrived", "", atMost(0))
		b.figure(part, r, "duplicates", "arrived again", "")
	}
	return err
}

func (b *bench) mix(ctx context.Context) error {
	const part = "mix"
	if err := b.fresh(ctx, 1); err != nil {
		return err
	}
	backend, err := load.StartBackend(ctx, b.site.backend)
	if err != nil {
		return err
	}
	defer backend.Close()
	r, err := b.play(ctx, part, "day", 5_000, func(c load.Config) (*load.Result, error) {
		return load.Mix(ctx, load.MixConfig{
			Config: c, Day: 12 * b.measure, Seed: 1, Service: grpcService, Size: messageSize, Backend: backend,
			Reports: 24, Tasks: 2, Hunts: 4, Replies: 3, Away: 0.2, Trips: 2,
		})
	})
	if r != nil {
		b.figure(part, r, "fs-server_cpu_per_message", "fs-server CPU a message of any kind", "µs")
		b.figure(part, r, "statements_per_message", "statements a message of any kind", "")
		b.figure(part, r, "arrival_p99_ms", "submit to arrival, client connected, p99", "ms")
		b.figure(part, r, "catch_up_p99_ms", "session start to arrival, client was away, p99", "ms")
		b.figure(part, r, "broadcast_p99_ms", "hunt to arrival, client connected, p99", "ms")
		b.figure(part, r, "lost", "accepted and not arrived", "", atMost(0))
		b.figure(part, r, "hunts_missing", "deliveries of hunts that are missing", "", atMost(0))
		b.figure(part, r, "duplicates", "arrived again", "")
	}
	return err
}
