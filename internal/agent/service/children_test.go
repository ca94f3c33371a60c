//go:build unix

package service_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
)

// childFlag in front of a behaviour's name makes the test program a child.
const childFlag = "farspeak-test-child"

// children are the behaviours of processes that a Daemon runs in these tests. They speak the protocol by themselves, byte by
// byte, so that both ends cannot be wrong alike.
var children = map[string]func(p *rawPeer, args []string) error{
	"loopback":   loopback,
	"garbage":    func(p *rawPeer, _ []string) error { return p.bytes(bytes.Repeat([]byte("garbage!"), 100)) },
	"frozen":     frozen,
	"crash":      func(*rawPeer, []string) error { return errors.New("crash at start") },
	"reader":     reader,
	"hang-up":    hangUp,
	"grandchild": grandchild,
	"orphan":     orphan,
	"print":      printBytes,
	"hog":        hog,
	"silent":     func(p *rawPeer, _ []string) error { return p.introduceThen(os.Getpid(), "0.7", p.untilEnd) },
	"beating":    beating,
	"number":     number,
	"facts":      facts,
	"claim":      claim,
	"strict":     strict,
	"oversize":   func(p *rawPeer, _ []string) error { return errors.Join(p.raw("0110eef1", "01002000"), p.untilEnd()) },
	"cut":        func(p *rawPeer, _ []string) error { return p.raw("0110eef1", "08000000", "2208") },
	"late":       func(p *rawPeer, _ []string) error { return p.untilEnd() },
	"farewell":   farewellChild,
	"full":       fillPipe,
	"nibble":     nibble,
}

func runChild(name string, args []string) int {
	p, err := openRawPeer()
	if err == nil {
		err = children[name](p, args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, name, err)
		return 3
	}
	return 0
}

// loopback answers each message with its content, to where it came from.
func loopback(p *rawPeer, _ []string) error {
	return p.introduceThen(os.Getpid(), "0.5", func() error {
		for {
			m, err := p.receive()
			if err != nil {
				return atEnd(err)
			}
			reply := &fspb.Message{
				Destination: &fspb.Address{ServiceName: m.Source.GetServiceName()},
				MessageType: m.MessageType + "Response",
				Data:        m.Data,
				Priority:    m.Priority,
				Annotations: &fspb.Annotations{Entries: []*fspb.Annotations_Entry{{Key: "pid", Value: strconv.Itoa(os.Getpid())}}},
			}
			if err := p.send(reply); err != nil {
				return err
			}
		}
	})
}

// frozen does nothing any more, and cannot be interrupted.
func frozen(p *rawPeer, args []string) error {
	signal.Ignore(syscall.SIGINT)
	if len(args) > 0 {
		if err := os.WriteFile(args[0]+".tmp", []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
			return err
		}
		if err := os.Rename(args[0]+".tmp", args[0]); err != nil {
			return err
		}
	}
	return p.introduceThen(os.Getpid(), "frozen", func() error { select {} })
}

// reader reports each message that it reads, in the order in which it does, and leaves after a number of them.
func reader(p *rawPeer, args []string) error {
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	return p.introduceThen(os.Getpid(), "", func() error {
		for range count {
			m, err := p.receive()
			if err != nil {
				return atEnd(err)
			}
			if err := p.text("Read", m.MessageType); err != nil {
				return err
			}
		}
		if len(args) > 1 { // a file that says when to leave
			return awaitFile(args[1])
		}
		return nil
	})
}

func awaitFile(path string) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
	}
	return errors.New(path + " does not come")
}

// hangUp closes its end of the channel and stays.
func hangUp(p *rawPeer, _ []string) error {
	return p.introduceThen(os.Getpid(), "", func() error {
		if err := p.out.(io.Closer).Close(); err != nil {
			return err
		}
		select {}
	})
}

// grandchild leaves behind a process that has everything open that it had, and ends.
func grandchild(p *rawPeer, args []string) error {
	return p.introduceThen(os.Getpid(), "", func() error {
		heir := exec.Command("sleep", "1000")
		heir.Stdout, heir.Stderr = os.Stdout, os.Stderr
		heir.ExtraFiles = []*os.File{p.in.(*os.File), p.out.(*os.File)}
		heir.SysProcAttr = &syscall.SysProcAttr{Setsid: args[0] == "escaped"}
		if err := heir.Start(); err != nil {
			return err
		}
		return p.text("Heir", strconv.Itoa(heir.Process.Pid))
	})
}

// orphan runs the rest of its arguments as a child of its own, which has the channel, and waits for it.
func orphan(p *rawPeer, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, append([]string{childFlag}, args...)...)
	cmd.ExtraFiles = []*os.File{p.in.(*os.File), p.out.(*os.File)}
	return cmd.Run()
}

// printBytes fills both standard streams, and ends.
func printBytes(p *rawPeer, args []string) error {
	size, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	return p.introduceThen(os.Getpid(), "", func() error {
		failed := make(chan error, 2)
		for i, stream := range []io.Writer{os.Stdout, os.Stderr} {
			go func() {
				_, err := stream.Write(pattern(size, byte(i)))
				failed <- err
			}()
		}
		if err := errors.Join(<-failed, <-failed); err != nil || len(args) == 1 {
			return err
		}
		return p.untilEnd() // and stay
	})
}

// pattern is content in which nothing can change places unnoticed.
func pattern(size int, seed byte) []byte {
	b := make([]byte, 0, size+8)
	for i := uint64(0); len(b) < size; i++ {
		b = binary.BigEndian.AppendUint64(b, i<<8|uint64(seed))
	}
	return b[:size]
}

// hog takes much memory.
func hog(p *rawPeer, _ []string) error {
	return p.introduceThen(os.Getpid(), "hungry", func() error {
		b := bytes.Repeat([]byte{1}, 300<<20)
		err := p.untilEnd()
		_ = b[len(b)-1]
		return err
	})
}

// beating sends heartbeats, and after a number of them says so.
func beating(p *rawPeer, args []string) error {
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	return p.introduceThen(os.Getpid(), "", func() error {
		for range count {
			heartbeat := &fspb.Message{Destination: &fspb.Address{ServiceName: "system"}, MessageType: "Heartbeat"}
			if err := p.send(heartbeat); err != nil {
				return err
			}
			<-time.After(20 * time.Millisecond)
		}
		if err := p.text("Alive", ""); err != nil {
			return err
		}
		return p.untilEnd()
	})
}

// number sends numbered messages of all priorities as fast as it can.
func number(p *rawPeer, args []string) error {
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	return p.introduceThen(os.Getpid(), "", func() error {
		for i := range count {
			data, err := anypb.New(wrapperspb.Int64(int64(i)))
			if err != nil {
				return err
			}
			m := &fspb.Message{
				Destination: &fspb.Address{ServiceName: "backend"}, MessageType: "Number", Data: data,
				Priority: fspb.Message_Priority(i % 3), SourceMessageId: fmt.Appendf(nil, "number-%d", i), Background: i%2 == 0,
			}
			if err := p.send(m); err != nil {
				return err
			}
		}
		return p.untilEnd()
	})
}

// facts tells what the process was given: variables, open descriptors and their modes, and where it runs.
func facts(p *rawPeer, _ []string) error {
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		return err
	}
	var open []string
	for _, link := range links {
		target, err := os.Readlink(link)
		ownWork := strings.HasPrefix(target, "anon_inode:") || strings.HasPrefix(target, "/proc/") || strings.HasPrefix(target, "/sys/")
		if err == nil && !ownWork {
			open = append(open, filepath.Base(link)+"="+strings.SplitN(target, ":", 2)[0])
		}
	}
	return p.introduceThen(os.Getpid(), "", func() error {
		for _, fact := range []string{
			"id " + os.Getenv("FLEETSPEAK_CLIENT_ID"),
			"in " + os.Getenv("FLEETSPEAK_COMMS_CHANNEL_INFD"),
			"out " + os.Getenv("FLEETSPEAK_COMMS_CHANNEL_OUTFD"),
			"inherited " + os.Getenv("FARSPEAK_TEST_INHERITED"),
			"open " + strings.Join(open, " "),
			fmt.Sprintf("leader %t", syscall.Getpgrp() == os.Getpid()),
		} {
			if err := p.text("Fact", fact); err != nil {
				return err
			}
		}
		return p.untilEnd()
	})
}

// claim says that it is another process.
func claim(p *rawPeer, args []string) error {
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	return p.introduceThen(pid, "liar", p.untilEnd)
}

// strict sends, byte by byte, what the protocol's description shows, and compares what comes with what it says.
func strict(p *rawPeer, args []string) error {
	own, err := hex.DecodeString("0110eef1" +
		"56000000" + "2208120673797374656d2a0b53746172747570446174613a3d0a32747970652e676f6f676c65617069732e636f6d2f" +
		"666c656574737065616b2e6368616e6e656c2e53746172747570446174611207082a1203302e35" + "0110eef1" +
		"15000000" + "2208120673797374656d2a09486561727462656174" + "0110eef1")
	if err != nil {
		return err
	}
	for i := range own {
		if err := p.bytes(own[i : i+1]); err != nil {
			return err
		}
	}
	want, err := hex.DecodeString(args[0])
	if err != nil {
		return err
	}
	verdict := "same"
	if err := p.expect(want); err != nil {
		verdict = err.Error()
	}
	if err := p.text("Verdict", verdict); err != nil {
		return err
	}
	if n, err := io.Copy(io.Discard, p.in); n != 0 || err != nil {
		return fmt.Errorf("%d bytes after the last magic, %w", n, err)
	}
	return p.text("End", "")
}

// farewellChild has more to say than fits a pipe when it is told to end.
func farewellChild(p *rawPeer, args []string) error {
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	return p.introduceThen(os.Getpid(), "", func() error {
		if err := p.untilEnd(); err != nil {
			return err
		}
		for range count {
			if err := p.text("Farewell", strings.Repeat("x", 1000)); err != nil {
				return err
			}
		}
		return nil
	})
}

// fillPipe writes messages that just fit a pipe, and ends at once.
func fillPipe(p *rawPeer, args []string) error {
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if err := p.bytes(magic); err != nil {
		return err
	}
	for range count {
		if err := p.text("Full", strings.Repeat("x", 1000)); err != nil {
			return err
		}
	}
	return nil
}

// nibble ends in the middle of the first message.
func nibble(p *rawPeer, _ []string) error {
	return p.introduceThen(os.Getpid(), "", func() error { return p.expect(make([]byte, 100)) })
}
