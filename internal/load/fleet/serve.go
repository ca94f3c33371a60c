package fleet

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/farspeak/farspeak/internal/load/heap"
)

// reportEvery is the time between two reports.
const reportEvery = 100 * time.Millisecond

// Command tells a fleet what to do. Exactly one field is set.
type Command struct {
	Start      *Job     `json:"start,omitempty"` // comes first, once
	Connect    bool     `json:"connect,omitempty"`
	Send       *Sending `json:"send,omitempty"`
	Rest       bool     `json:"rest,omitempty"` // send nothing more
	Churn      *Churn   `json:"churn,omitempty"`
	Settle     bool     `json:"settle,omitempty"` // end the churn; all come back
	Disconnect bool     `json:"disconnect,omitempty"`
	Account    bool     `json:"account,omitempty"` // answer with an Account
}

// Answer is what a fleet says: a report now and then, and one answer to each command. A report comes with every answer.
type Answer struct {
	Report  *Report  `json:"report,omitempty"`
	Done    bool     `json:"done,omitempty"` // it answers a command
	Error   string   `json:"error,omitempty"`
	Account *Account `json:"account,omitempty"`
}

// Account is what a fleet can prove.
type Account struct {
	// Seen are the numbers of the messages to one client that arrived, as measure.Seen encodes them.
	Seen []byte `json:"seen"`
	// Acked is how many of its own messages each client saw acknowledged: their numbers are 0 to Acked-1.
	Acked []uint64 `json:"acked"`
}

// Serve runs one fleet by commands, lines of JSON, until there are no more of them or ctx ends. It answers in the same form.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	defer heap.Floor()()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &served{commands: make(chan Command), answers: json.NewEncoder(out)}
	read := make(chan error, 1)
	go func() { // ends with in, which whoever gives the commands closes, or with ctx
		defer close(s.commands)
		read <- s.read(ctx, in)
	}()
	err := s.run(ctx)
	if s.fleet != nil {
		s.fleet.Close()
	}
	cancel()
	select {
	case readErr := <-read:
		err = errors.Join(err, readErr)
	default: // it is blocked in a read that the end of the process ends
	}
	return err
}

// served is a fleet that is run by commands.
type served struct {
	commands chan Command
	answers  *json.Encoder
	fleet    *Fleet // nil before it is started
}

func (s *served) read(ctx context.Context, in io.Reader) error {
	decoder := json.NewDecoder(bufio.NewReader(in))
	for {
		var c Command
		if err := decoder.Decode(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read command: %w", err)
		}
		select {
		case s.commands <- c:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *served) run(ctx context.Context) error {
	ticker := time.NewTicker(reportEvery)
	defer ticker.Stop()
	for {
		var answer Answer
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if s.fleet == nil {
				continue
			}
		case c, ok := <-s.commands:
			if !ok {
				return nil
			}
			answer.Done = true
			account, err := s.carryOut(c)
			if answer.Account = account; err != nil {
				answer.Error = err.Error()
			}
		}
		if s.fleet != nil {
			report := s.fleet.meters.report()
			answer.Report = &report
		}
		if err := s.answers.Encode(answer); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
}

func (s *served) carryOut(c Command) (*Account, error) {
	switch {
	case c.Start != nil && s.fleet != nil:
		return nil, errors.New("the fleet is started already")
	case c.Start != nil:
		return nil, s.start(*c.Start)
	case s.fleet == nil:
		return nil, errors.New("the fleet is not started")
	case c.Connect:
		s.fleet.Connect()
	case c.Send != nil:
		s.fleet.StartSending(*c.Send)
	case c.Rest:
		s.fleet.StopSending()
	case c.Churn != nil:
		s.fleet.StartChurn(*c.Churn)
	case c.Settle:
		s.fleet.StopChurn()
	case c.Disconnect:
		s.fleet.Disconnect()
	case c.Account:
		return s.fleet.account()
	}
	return nil, nil
}

func (s *served) start(job Job) error {
	keys, err := LoadKeys(job.KeyFile, job.First, job.Count)
	if err != nil {
		return err
	}
	s.fleet, err = New(job, keys)
	return err
}

// account collects what the fleet can prove.
func (f *Fleet) account() (*Account, error) {
	seen, err := f.meters.down.MarshalBinary()
	if err != nil {
		return nil, err
	}
	a := &Account{Seen: seen, Acked: make([]uint64, len(f.clients))}
	for i, c := range f.clients {
		c.mu.Lock()
		a.Acked[i] = c.sent
		c.mu.Unlock()
	}
	return a, nil
}
