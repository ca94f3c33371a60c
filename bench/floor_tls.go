package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/farspeak/farspeak/internal/load/fleet"
	"github.com/farspeak/farspeak/internal/load/measure"
	"github.com/farspeak/farspeak/internal/resume"
	"github.com/farspeak/farspeak/internal/wire"
)

const (
	// floorConnections is for how many connections a floor is measured.
	floorConnections = 3000
	// floorTime is how long a rate is measured.
	floorTime = 3 * time.Second
	// floorClients is how many clients use the echo server at once, and floorCalls the gRPC server.
	floorClients = 200
	floorCalls   = 64
)

// floorProcess is a running floor server.
type floorProcess struct {
	*process
	address string
}

func (b *bench) startFloor(ctx context.Context, kind string) (*floorProcess, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := b.site.certificates
	input := filepath.Join(b.site.dir, "floor.pem")
	text := fmt.Sprintf("%d %d\n%s%s", len(c.certificate), len(c.key), c.certificate, c.key)
	if err := os.WriteFile(input, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p, err := startWithInput(b.site.dir, "floor-"+kind, input, program, "-floor_server", kind, "-floor_address", address)
	if err != nil {
		return nil, err
	}
	f := &floorProcess{p, address}
	return f, p.until(ctx, func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// floorDialer dials floor servers with the keys of simulated clients.
func (b *bench) floorDialer(f *floorProcess) (*fleet.Dialer, *fleet.Keyring, error) {
	if err := fleet.EnsureKeys(b.keys, floorConnections); err != nil {
		return nil, nil, err
	}
	keys, err := fleet.LoadKeys(b.keys, 0, floorConnections)
	if err != nil {
		return nil, nil, err
	}
	dialer, err := fleet.NewDialer(fleet.Job{Servers: []string{f.address}, TrustedCerts: b.site.certificates.certificate})
	return dialer, keys, err
}

// dialAll makes count connections, a few at a time, and reads the byte that says that each is up.
func dialAll(ctx context.Context, f *floorProcess, dialer *fleet.Dialer, keys *fleet.Keyring, count int, tickets []*resume.Cache) ([]net.Conn, error) {
	conns, errs := make([]net.Conn, count), make([]error, count)
	var dialing sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i := range count {
		slots <- struct{}{}
		dialing.Go(func() {
			defer func() { <-slots }()
			var cache *resume.Cache
			if tickets != nil {
				cache = tickets[i]
			}
			conn, err := dialer.Dial(ctx, f.address, keys, i, cache)
			if err == nil {
				conns[i] = conn
				_, err = io.ReadFull(conn, make([]byte, 1))
			}
			errs[i] = err
		})
	}
	dialing.Wait()
	for _, err := range errs {
		if err != nil {
			return conns, err
		}
	}
	return conns, nil
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
}

// connectionMemory is what a bare connection takes in a server, in KiB.
func (b *bench) connectionMemory(ctx context.Context, kind string) (float64, error) {
	f, err := b.startFloor(ctx, kind)
	if err != nil {
		return 0, err
	}
	defer f.kill()
	dialer, keys, err := b.floorDialer(f)
	if err != nil {
		return 0, err
	}
	before, err := measure.ReadUsage(f.pid())
	if err != nil {
		return 0, err
	}
	conns, err := dialAll(ctx, f, dialer, keys, floorConnections, nil)
	defer closeAll(conns)
	if err != nil {
		return 0, err
	}
	if err := f.command.Process.Signal(syscall.SIGUSR1); err != nil {
		return 0, err
	}
	pause(ctx, 2*time.Second) // for the collector; nothing tells when it is done
	after, err := measure.ReadUsage(f.pid())
	return float64(after.Resident-before.Resident) / floorConnections / 1024, err
}

// handshake is what one kind of handshake costs a server, in ms of CPU, and how many clients connect by it in a second when both
// ends share this machine.
type handshake struct{ cpuMS, perSecond float64 }

// handshakeFloors are those of bare connections: full ones, resumed ones, and resumed ones without ML-KEM.
type handshakeFloors struct{ full, resumed, light handshake }

func (b *bench) handshakes(ctx context.Context) (h handshakeFloors, err error) {
	f, err := b.startFloor(ctx, floorHold)
	if err != nil {
		return h, err
	}
	defer f.kill()
	dialer, keys, err := b.floorDialer(f)
	if err != nil {
		return h, err
	}
	tickets := make([]*resume.Cache, floorConnections)
	for i := range tickets {
		tickets[i] = new(resume.Cache)
	}
	if h.full, err = shakeHands(ctx, f, dialer, keys, tickets, false, tls.X25519MLKEM768); err != nil {
		return h, err
	}
	if h.resumed, err = shakeHands(ctx, f, dialer, keys, tickets, true, tls.X25519MLKEM768); err != nil {
		return h, err
	}
	for _, t := range tickets {
		t.Learn(http.Header{wire.FeaturesHeader: {wire.FeatureSharedTickets}})
	}
	h.light, err = shakeHands(ctx, f, dialer, keys, tickets, true, tls.CurveP256)
	return h, err
}

// shakeHands makes a connection for each ticket and wants all handshakes to be of one kind.
func shakeHands(ctx context.Context, f *floorProcess, dialer *fleet.Dialer, keys *fleet.Keyring, tickets []*resume.Cache,
	resumed bool, exchange tls.CurveID,
) (h handshake, err error) {
	before, err := measure.ReadUsage(f.pid())
	if err != nil {
		return h, err
	}
	began := time.Now()
	conns, err := dialAll(ctx, f, dialer, keys, len(tickets), tickets)
	took := time.Since(began)
	defer closeAll(conns)
	if err != nil {
		return h, err
	}
	for _, conn := range conns {
		if state := conn.(*tls.Conn).ConnectionState(); state.DidResume != resumed || state.CurveID != exchange {
			return h, fmt.Errorf("handshake: resumed %t by %v, want %t by %v", state.DidResume, state.CurveID, resumed, exchange)
		}
	}
	after, err := measure.ReadUsage(f.pid())
	count := float64(len(tickets))
	return handshake{cpuMS: (after.CPU - before.CPU).Seconds() * 1000 / count, perSecond: count / took.Seconds()}, err
}

// echoRate is how many messages of 200 bytes, ten in a request, clients and a server pass over mutual TLS in a second.
func (b *bench) echoRate(ctx context.Context) (float64, error) {
	f, err := b.startFloor(ctx, floorEcho)
	if err != nil {
		return 0, err
	}
	defer f.kill()
	dialer, keys, err := b.floorDialer(f)
	if err != nil {
		return 0, err
	}
	conns, err := dialAll(ctx, f, dialer, keys, floorClients, nil)
	defer closeAll(conns)
	if err != nil {
		return 0, err
	}
	request := []byte(strings.Repeat("x", echoRequest))
	requests := during(floorClients, func(i int) error {
		if _, err := conns[i].Write(request); err != nil {
			return err
		}
		_, err := io.ReadFull(conns[i], make([]byte, 4))
		return err
	})
	return 10 * requests, nil
}

// during calls work in some goroutines for a while and returns how often it succeeded in a second.
func during(goroutines int, work func(i int) error) float64 {
	counts := make([]int, goroutines)
	var working sync.WaitGroup
	began := time.Now()
	for i := range goroutines {
		working.Go(func() {
			for time.Since(began) < floorTime && work(i) == nil {
				counts[i]++
			}
		})
	}
	working.Wait()
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return float64(sum) / time.Since(began).Seconds()
}
