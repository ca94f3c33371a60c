package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/golang/glog"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/farspeak/farspeak/internal/wire"
	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	stdinpb "github.com/farspeak/farspeak/proto/fleetspeak/stdinservice"
)

const (
	stdinInputType  = "StdinServiceInputMessage"
	stdinOutputType = "StdinServiceOutputMessage"

	// maxStdinOutput is how much a command may print, standard output and error together. More would not fit a message
	// and is an error, not a cut answer (G-16).
	maxStdinOutput = 2 << 20
	// maxLoggedOutput is how much of each stream goes to the agent's log.
	maxLoggedOutput = 4096
)

// stdin runs a command for each message: its input is the message's, its output the answer.
type stdin struct {
	name   string
	host   Host
	config *stdinpb.Config
}

// NewStdin makes a service that runs a command for each message. Commands run one at a time, without a time limit; one that
// is still running when the service stops is killed with all it started.
func NewStdin(spec Spec) (Service, error) {
	config := &stdinpb.Config{}
	if err := configOf(spec, config); err != nil {
		return nil, err
	}
	if config.Cmd == "" {
		return nil, errors.New("config: cmd is empty")
	}
	return &stdin{name: spec.Name, host: spec.Host, config: config}, nil
}

func (s *stdin) Process(ctx context.Context, m *fspb.Message) error {
	input, err := stdinInput(m)
	if err != nil {
		return err
	}
	c := &command{
		path:  s.config.Cmd,
		args:  slices.Concat(s.config.Args, input.Args),
		input: input.Input,
		limit: maxStdinOutput,
	}
	err = c.run(ctx)
	s.log(c, err)
	if err != nil {
		return fmt.Errorf("command failed: %w", err)
	}
	return s.answer(ctx, c)
}

func stdinInput(m *fspb.Message) (*stdinpb.InputMessage, error) {
	if m.MessageType != stdinInputType {
		return nil, fmt.Errorf("unexpected message type %q, want %s", m.MessageType, stdinInputType)
	}
	if m.Data == nil {
		return nil, errors.New("the message has no data")
	}
	input := &stdinpb.InputMessage{}
	if err := wire.CheckElements(m.Data.Value, input.ProtoReflect().Descriptor(), wire.MaxServerElements); err != nil {
		return nil, fmt.Errorf("unreadable input message: %w", err)
	}
	if err := m.Data.UnmarshalTo(input); err != nil {
		return nil, fmt.Errorf("unreadable input message: %w", err)
	}
	return input, nil
}

// answer sends the output to the server's service of the same name, whoever asked.
func (s *stdin) answer(ctx context.Context, c *command) error {
	data, err := anypb.New(&stdinpb.OutputMessage{
		Stdout:    c.stdout.Bytes(),
		Stderr:    c.stderr.Bytes(),
		Timestamp: timestamppb.Now(),
	})
	if err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	m := &fspb.Message{
		Destination: &fspb.Address{ServiceName: s.name},
		MessageType: stdinOutputType,
		Data:        data,
	}
	return s.host.Send(ctx, m, nil)
}

func (s *stdin) log(c *command, err error) {
	level := s.config.LogLevel
	if level == stdinpb.LogLevel_LOG_LEVEL_NONE {
		return
	}
	if level == stdinpb.LogLevel_LOG_LEVEL_ALL {
		glog.Infof("service %s: stdout of %s: %q", s.name, s.config.Cmd, head(&c.stdout))
	}
	glog.Infof("service %s: stderr of %s: %q (error: %v)", s.name, s.config.Cmd, head(&c.stderr), err)
}

func head(b *bytes.Buffer) []byte { return b.Bytes()[:min(b.Len(), maxLoggedOutput)] }

// Stop has nothing to end: a command ends within the Process call that runs it.
func (s *stdin) Stop(context.Context) {}
