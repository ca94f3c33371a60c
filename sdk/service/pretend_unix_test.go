//go:build unix

package service_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"sync"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// pretended is an agent that sends one text to a service, takes one answer and ends the service.
type pretended struct {
	toService, fromService net.Conn

	work   sync.WaitGroup
	answer *fspb.Message
}

func pretendAgent(text string) *pretended {
	toService, out := net.Pipe()
	fromService, in := net.Pipe()
	a := &pretended{toService: toService, fromService: fromService}
	a.work.Go(func() {
		p := &peer{tb: fatal{}, in: in, out: out}
		p.greet("1.0")
		m := request(fatal{}, text)
		m.Source.ServiceName = "example"
		p.send(m)
		a.answer = p.mustReceive()
		out.Close()
		if _, err := p.receive(); !errors.Is(err, io.EOF) {
			log.Panic(err)
		}
	})
	return a
}

func (a *pretended) printAnswer() {
	a.fromService.Close()
	a.work.Wait()
	printMessage(a.answer)
}

// pretendSocketAgent listens as an agent does. The function that it returns takes one message and acknowledges it.
func pretendSocketAgent() (path string, acknowledge func()) {
	folder, err := os.MkdirTemp("", "fs")
	if err != nil {
		log.Panic(err)
	}
	path = filepath.Join(folder, "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		log.Panic(err)
	}
	if err := errors.Join(os.Chown(folder, os.Getuid(), os.Getgid()), os.Chmod(folder, 0o700), os.Chmod(path, 0o600)); err != nil {
		log.Panic(err)
	}
	return path, func() {
		conn, err := listener.Accept()
		if err != nil {
			log.Panic(err)
		}
		p := &peer{tb: fatal{}, in: conn, out: conn}
		p.greet("1.0")
		m := p.mustReceive()
		printMessage(m)
		p.send(localAck(fatal{}, m.SourceMessageId))
		os.RemoveAll(folder)
	}
}

// script is a connection that delivers what it holds, prints what is sent, and ends.
type script []*fspb.Message

func (s *script) Receive(context.Context) (*fspb.Message, error) {
	if len(*s) == 0 {
		return nil, io.EOF
	}
	m := (*s)[0]
	*s = (*s)[1:]
	return m, nil
}

func (s *script) Send(_ context.Context, m *fspb.Message) error {
	printMessage(m)
	return nil
}

func printMessage(m *fspb.Message) {
	data, err := m.GetData().UnmarshalNew()
	if err != nil {
		log.Panic(err)
	}
	value := data.ProtoReflect().Get(data.ProtoReflect().Descriptor().Fields().ByName("value")).Interface()
	if text, ok := value.(string); ok {
		value = fmt.Sprintf("%q", text)
	}
	fmt.Printf("to service %q: %s %v\n", m.GetDestination().GetServiceName(), m.GetMessageType(), value)
}

// fatal makes a failed expectation of a pretended agent end the example.
type fatal struct{}

func (fatal) Errorf(format string, args ...any) { log.Panicf(format, args...) }
