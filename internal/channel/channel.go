// Package channel is the protocol that an agent and a service in another process speak: over two pipes when the agent
// started the process, over a socket when it did not. Both directions are alike.
//
//	magic, frame, frame, …
//
//	magic  01 10 ee f1   0xf1ee1001, little endian
//	frame  size          4 bytes, little endian, at most 2 MiB
//	       body          size bytes, a serialized fleetspeak.Message
//	       magic
//
// So a correct stream begins and ends with the magic. Each side writes its first magic at once, and a service should write
// before it reads.
//
// # Invariants
//
//   - A message is handed over when its body is complete; the magic after it is read with the next one. A peer that is
//     late with that magic delays nothing but its own end.
//   - Nothing is allocated for a size that a peer announces, only for what it has sent: a body's buffer starts at 4 KiB and
//     doubles when it is full. Between messages a Reader holds at most 68 KiB.
//   - A frame is written in one piece, so that no peer ever waits for a magic that is still to come.
//   - Once a frame has begun its rest is bounded in time; the wait for the next one is not.
//   - Nothing is resynchronised: the first error of a Reader or a Writer is also its last.
//
// The package opens nothing, closes nothing and logs nothing. It starts no goroutines, with one exception: see
// Config.Expired. Readers and Writers are for one goroutine each.
package channel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Magic opens a stream and ends each frame.
const Magic uint32 = 0xf1ee1001

const (
	// MaxMessage is the largest body in bytes.
	MaxMessage = 2 << 20
	// DefaultTimeout is how long a peer may take for a magic, and for the rest of a frame that it has begun.
	DefaultTimeout = 5 * time.Minute

	magicSize = 4
	sizeSize  = 4
)

// Errors of a Reader that a peer has caused. Those of the transport pass through below the operation's name: an end
// inside a frame has io.ErrUnexpectedEOF in it, a peer that took too long os.ErrDeadlineExceeded.
var (
	// ErrProtocol is in every error that a peer caused by what it sent.
	ErrProtocol = errors.New("protocol violation")
	// ErrMagic says that there was something else where the magic should be.
	ErrMagic = fmt.Errorf("%w: wrong magic", ErrProtocol)
	// ErrTooLarge says that a message has more than MaxMessage bytes. A Writer returns it too, and is still good then.
	ErrTooLarge = fmt.Errorf("%w: message too large", ErrProtocol)
	// ErrMessage says that a body is no fleetspeak.Message.
	ErrMessage = fmt.Errorf("%w: malformed message", ErrProtocol)
)

func appendMagic(dst []byte) []byte { return binary.LittleEndian.AppendUint32(dst, Magic) }
