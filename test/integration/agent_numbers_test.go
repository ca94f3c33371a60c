package integration_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	"github.com/farspeak/farspeak/sdk/backend"
	"github.com/farspeak/farspeak/sdk/service"
	"github.com/farspeak/farspeak/test/harness"
)

const (
	// numbersFlag in front of a kind of service makes the test program the process of the service "numbers".
	numbersFlag    = "farspeak-test-numbers"
	numbersService = "numbers"
	// daemonWindow and socketWindow are how many numbers may be sent and not accepted. Acknowledgements of a Socket that are
	// as many as that wait for no others.
	daemonWindow = 8
	socketWindow = 50
)

// numbersPace is the pause between two numbers of a Daemon. The backend gets them one by one, and should keep up.
func numbersPace() time.Duration {
	if harness.RaceEnabled {
		return 10 * time.Millisecond
	}
	return 2 * time.Millisecond
}

// runNumbers is the life of a process of the service "numbers": it sends numbers, one after the other, for as long as it
// runs, and keeps in a file up to where they are accepted. The next process goes on from there, and so sends numbers again
// of which this one did not hear. They have the same source message IDs then.
func runNumbers(args []string) int {
	err := countOn(context.Background(), args[0], args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "numbers:", err)
		return 1
	}
	return 0
}

func countOn(ctx context.Context, kind string, args []string) error {
	l, err := openLedger(args[0])
	if err != nil {
		return err
	}
	if kind == "Daemon" {
		return countAsDaemon(ctx, l)
	}
	return countAsSocket(ctx, l, args[1])
}

// countAsSocket takes a number for accepted when the agent said that the server has it.
func countAsSocket(ctx context.Context, l *ledger, path string) error {
	socket, err := service.OpenSocket(service.SocketConfig{Path: path, Version: "1"})
	if err != nil {
		return err
	}
	for {
		for range socketWindow {
			l.last++
			if err := socket.Send(ctx, number(l.last)); err != nil {
				return err
			}
		}
		if err := socket.Flush(ctx); err != nil {
			return err
		}
		if err := l.accept(l.last); err != nil {
			return err
		}
	}
}

// countAsDaemon takes a number for accepted when a message to the process itself that was sent after it has come back: the
// agent takes messages in order, each when it has done with the one before. A Daemon hears no more of what it sends.
func countAsDaemon(ctx context.Context, l *ledger) error {
	self, err := hex.DecodeString(os.Getenv("FLEETSPEAK_CLIENT_ID"))
	if err != nil {
		return err
	}
	daemon, err := service.OpenDaemon(ctx, service.DaemonConfig{Version: "1"})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	window := make(chan struct{}, daemonWindow)
	var sending sync.WaitGroup
	var sendErr error
	next := l.last + 1
	sending.Go(func() { sendErr = sendNumbers(ctx, daemon, self, next, window, l.enough) })
	err = receiveNumbers(ctx, daemon, l, window)
	cancel()
	sending.Wait()
	if errors.Is(err, io.EOF) {
		return nil // the agent is gone, and whatever could not be sent any more comes from the next process
	}
	return errors.Join(err, sendErr)
}

// sendNumbers sends each number, and after it the same to this process itself, until there are enough.
func sendNumbers(ctx context.Context, daemon *service.Daemon, self []byte, n int64, window chan<- struct{}, enough func() bool) error {
	pace := time.NewTicker(numbersPace())
	defer pace.Stop()
	for ; ; n++ {
		<-pace.C
		if enough() {
			return nil
		}
		select {
		case window <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		back := number(n)
		back.Destination.ClientId, back.SourceMessageId = self, nil
		for _, m := range []*fspb.Message{number(n), back} {
			if err := daemon.Send(ctx, m); err != nil {
				return err
			}
		}
	}
}

func receiveNumbers(ctx context.Context, daemon *service.Daemon, l *ledger, window <-chan struct{}) error {
	for {
		m, err := daemon.Receive(ctx)
		if err != nil {
			return err
		}
		if n := numberOf(m); n != l.last+1 {
			return fmt.Errorf("number %d came back in place of %d", n, l.last+1)
		}
		if err := l.accept(l.last + 1); err != nil {
			return err
		}
		<-window
	}
}

// number is the message that carries n to the service's backend.
func number(n int64) *fspb.Message {
	m, err := service.NewMessage(numbersService, "Number", wrapperspb.Int64(n))
	if err != nil {
		panic(err) // a number can be serialized
	}
	m.SourceMessageId = binary.BigEndian.AppendUint64(make([]byte, 8), uint64(n))
	return m
}

// ledger is the file that says up to where numbers are accepted: one a line, of which the last complete one counts. Nobody
// but the system has to survive, so nothing waits for the disk.
type ledger struct {
	file *os.File
	last int64
}

func openLedger(path string) (*ledger, error) {
	last, err := readLedger(path)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &ledger{file: file, last: last}, nil
}

// enoughSuffix is what the name of a ledger has more in the name of the file that says that there are enough numbers.
const enoughSuffix = ".enough"

func (l *ledger) enough() bool {
	_, err := os.Stat(l.file.Name() + enoughSuffix)
	return err == nil
}

func (l *ledger) accept(n int64) error {
	l.last = n
	_, err := fmt.Fprintln(l.file, n)
	return err
}

// readLedger returns the highest number in a ledger. A process that is about to end may write beside its successor, so that
// the last line need not have it.
func readLedger(path string) (last int64, err error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	lines := bytes.Split(text, []byte("\n"))
	for _, line := range lines[max(0, len(lines)-2*daemonWindow) : len(lines)-1] { // what follows the last newline is incomplete
		n, err := strconv.ParseInt(string(line), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("ledger %s: %w", path, err)
		}
		last = max(last, n)
	}
	return last, nil
}

// arrivedNumbers counts how often each number came to the backend.
type arrivedNumbers struct {
	mu     sync.Mutex
	copies map[int64]int
	whole  int64   // all numbers up to it have come
	early  []int64 // numbers that came before all below them had
}

func (a *arrivedNumbers) take(_ context.Context, m *fspb.Message) error {
	n := numberOf(m)
	if n < 1 {
		return backend.Permanent(errors.New("the message has no number"))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.copies[n]++; n > a.whole+1 && a.copies[n] == 1 {
		a.early = append(a.early, n)
	}
	for a.copies[a.whole+1] > 0 {
		a.whole++
	}
	return nil
}

// count is how many different numbers have come.
func (a *arrivedNumbers) count() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int64(len(a.copies))
}

// upTo is how far all numbers have come, but not beyond last.
func (a *arrivedNumbers) upTo(last int64) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return min(a.whole, last)
}

// overtakers are the numbers that came too early.
func (a *arrivedNumbers) overtakers() []int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.early)
}

func (a *arrivedNumbers) all() map[int64]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.copies)
}

func (a *arrivedNumbers) duplicates() int {
	copies := a.all()
	return sum(copies) - len(copies)
}

func sum(counts map[int64]int) (total int) {
	for _, n := range counts {
		total += n
	}
	return total
}
