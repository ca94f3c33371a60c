package service

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	daemonpb "github.com/farspeak/farspeak/proto/fleetspeak/daemonservice"
)

const (
	outputType = "StdOutput"
	// outputBuffer is how much of a stream is read at once.
	outputBuffer = 32 << 10
)

// output forwards the standard output and error of a process: both in one message, which leaves when it is full, when its
// first byte is old enough, and at the end of the process. While the outbox is full nothing is read.
type output struct {
	*child
	stdout, stderr *inflow
	begun          chan struct{} // holds a token when there is something to send

	mu    sync.Mutex // held also while sending, which stalls both streams
	data  *daemonpb.StdOutputData
	size  int
	since time.Time // of the first byte
	index int64
}

func newOutput(c *child, stdout, stderr *inflow) *output {
	return &output{child: c, stdout: stdout, stderr: stderr, begun: make(chan struct{}, 1), data: &daemonpb.StdOutputData{}}
}

// collect works until both streams have ended.
func (o *output) collect(ctx context.Context) {
	ended := make(chan struct{})
	var streams, flusher sync.WaitGroup
	streams.Go(func() { o.read(ctx, o.stdout, &o.data.Stdout) })
	streams.Go(func() { o.read(ctx, o.stderr, &o.data.Stderr) })
	flusher.Go(func() { o.flushOld(ctx, ended) })
	streams.Wait()
	close(ended)
	flusher.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flushLocked(ctx)
}

func (o *output) read(ctx context.Context, from *inflow, into *[]byte) {
	b := make([]byte, outputBuffer)
	for {
		n, err := from.Read(b)
		o.add(ctx, b[:n], into)
		if err != nil {
			return // the end, or a pipe that was closed to end it
		}
	}
}

// add takes output, and sends what is full.
func (o *output) add(ctx context.Context, b []byte, into *[]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(b) > 0 {
		if o.size == o.settings.output.bytes {
			o.flushLocked(ctx)
		}
		if o.size == 0 {
			o.beginLocked()
		}
		n := min(len(b), o.settings.output.bytes-o.size)
		*into = append(*into, b[:n]...)
		o.size += n
		b = b[n:]
	}
}

func (o *output) beginLocked() {
	o.since = time.Now()
	select {
	case o.begun <- struct{}{}:
	default:
	}
}

// flushOld sends what has become old, until ended is closed.
func (o *output) flushOld(ctx context.Context, ended <-chan struct{}) {
	for {
		select {
		case <-o.begun:
		case <-ended:
			return
		}
		for left := o.settings.output.age; left > 0; left = o.flushIfOld(ctx) {
			if !pause(ended, left) {
				return
			}
		}
	}
}

// flushIfOld returns how long the oldest byte still has; 0 when nothing is left.
func (o *output) flushIfOld(ctx context.Context) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.size == 0 {
		return 0
	}
	if left := o.settings.output.age - time.Since(o.since); left > 0 {
		return left
	}
	o.flushLocked(ctx)
	return 0
}

func (o *output) flushLocked(ctx context.Context) {
	if o.size == 0 {
		return
	}
	o.data.Pid, o.data.MessageIndex = int64(o.pid()), o.index
	data, err := anypb.New(o.data)
	if err == nil {
		err = o.host.Send(ctx, &fspb.Message{
			Destination: &fspb.Address{ServiceName: o.settings.output.service},
			MessageType: outputType,
			Data:        data,
		}, nil)
	}
	if err != nil {
		o.drops.note("its output cannot be sent: %v", err)
	}
	o.index++
	o.data.Stdout, o.data.Stderr, o.size = o.data.Stdout[:0], o.data.Stderr[:0], 0
}

// finish says that the process has ended.
func (o *output) finish() {
	o.stdout.finish()
	o.stderr.finish()
}

// close ends both streams.
func (o *output) close() {
	o.stdout.close()
	o.stderr.close()
}
