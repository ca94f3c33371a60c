// Command inventory is a small backend, built as the large ones are: it gives messages to fs-admin, fs-server gives it
// the answers of the clients, and in between it keeps track of what it asked.
//
// It asks each client for facts of its machine, prints the answers with the time that each took, and exits with 0 only
// when all have come. README.md says how to set it up; make demo runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/farspeak/farspeak/sdk/backend"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o options
	flag.StringVar(&o.admin, "admin", "localhost:9000", "address of fs-admin")
	flag.StringVar(&o.listen, "listen", "localhost:9090", "where fs-server delivers answers, the target in its services file")
	flag.DurationVar(&o.timeout, "timeout", time.Minute, "how long to wait for all answers")
	files := flag.String("files", "/etc/os-release,/etc/passwd,/bin/sh", "files to take checksums of, with commas between them")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: inventory [flags] [client ID ...]; without IDs it asks all clients")
		flag.PrintDefaults()
	}
	flag.Parse()
	o.files, o.clients = strings.Split(*files, ","), flag.Args()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "inventory:", err)
		stop()
		os.Exit(1)
	}
}

type options struct {
	admin, listen string
	timeout       time.Duration
	files         []string
	clients       []string // hex; none means all
}

// run receives first and submits then, so that no answer comes too early.
func run(ctx context.Context, o options) (err error) {
	submitter, err := backend.NewSubmitter(backend.SubmitterConfig{Address: o.admin, Source: source})
	if err != nil {
		return err
	}
	defer submitter.Close()
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()

	clients, err := chooseClients(ctx, submitter.Admin(), o.clients)
	if err != nil {
		return err
	}
	ledger := newLedger(clients, o.files)
	stop, err := receive(o.listen, ledger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	if err := submit(ctx, submitter, ledger); err != nil {
		return err
	}
	watchFailures(ctx, submitter.Admin(), ledger)
	return ledger.print(os.Stdout)
}

// receive has fs-server deliver answers to the ledger. The returned function lets calls under way finish, so that each
// answer that was counted is also acknowledged.
func receive(address string, l *ledger) (stop func() error, err error) {
	processor, err := newProcessor(l)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("receive answers: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	var serveErr error
	serving.Go(func() { serveErr = processor.Serve(ctx, listener) })
	return func() error {
		cancel()
		serving.Wait()
		return serveErr
	}, nil
}

// newProcessor routes the services of all facts to the ledger.
func newProcessor(l *ledger) (*backend.Processor, error) {
	services := map[string]backend.Handler{}
	for _, f := range facts {
		services[f.service] = l.take
	}
	return backend.NewProcessor(backend.ProcessorConfig{Services: services})
}
