// Package wire is what both ends of the client protocol share: records and their limits, compression, message tokens and
// nonces. The agent and the server both stand on it, and on nothing else of each other.
//
// # A stream
//
//	agent to server:  magic, record, record, …   (as a whole in one zlib stream when compressed)
//	server to agent:  record, record, …
//
//	magic   01 10 ee f1   0xf1ee1001, little endian
//	record  length        unsigned varint, at most 10 bytes
//	        body          WrappedContactData from the agent, ContactData from the server
//
// A poll has no framing: the body of its request or response is the message itself. ReadAll reads it.
//
// # Invariants
//
//   - Nothing is allocated for what a peer announces, only for what it has sent: a buffer starts at 4 KiB and doubles when
//     it is full. What records in flight hold beyond that first buffer is drawn from a Budget that all connections share.
//   - Between records a RecordReader holds no buffer at all, and an Inflater no more than the history that the next record
//     may refer to.
//   - A record that was flushed by its sender can be read at once; no reader here waits for input it does not need.
//   - What a peer did wrong is an ErrProtocol. Errors of the transport, deadlines included, pass through unchanged below
//     the operation's name.
//
// The package opens no sockets, starts no goroutines and logs nothing. Its only variables are pools, which are caches.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Magic opens a stream from the agent.
const Magic uint32 = 0xf1ee1001

const magicSize = 4

// Limits of the protocol.
const (
	// MaxClientRecord is the largest record or poll body of an agent, in bytes before compression.
	MaxClientRecord = 20 << 20
	// MaxMessagesPerRecord is how many messages a record may carry, in either direction.
	MaxMessagesPerRecord = 100
	// MaxMessage is the largest serialized message that the admin interface takes, and that a child or a socket service
	// may send.
	MaxMessage = 2 << 20
	// MaxServerRecord is the largest record that our server makes of more than one message.
	MaxServerRecord = 4 << 20
	// MaxReadServerRecord is the largest record that an agent takes from a server. The original caps nothing: 100
	// messages of 2 MiB and broadcasts beside them have to pass (G-50).
	MaxReadServerRecord = 256 << 20
	// MaxServerElements is how many fields an agent takes in a record, a file or a message's data: those of the densest
	// MaxMessage, which has one for every two bytes, and of what is around it. A full record of a real server has a few
	// thousand.
	MaxServerElements = MaxMessage/2 + 64<<10
)

var (
	// ErrProtocol is in every error that a peer caused by what it sent.
	ErrProtocol = errors.New("protocol violation")
	// ErrMagic says that a stream does not begin with the magic.
	ErrMagic = fmt.Errorf("%w: wrong magic", ErrProtocol)
	// ErrLength says that the length of a record is not a varint of 64 bits in its shortest form.
	ErrLength = fmt.Errorf("%w: malformed record length", ErrProtocol)
	// ErrEmptyRecord says that a record of length zero came where none is allowed (G-03).
	ErrEmptyRecord = fmt.Errorf("%w: empty record", ErrProtocol)
	// ErrTooLarge says that a record or a body is over its limit.
	ErrTooLarge = fmt.Errorf("%w: too large", ErrProtocol)
)

// AppendMagic appends the magic to dst.
func AppendMagic(dst []byte) []byte { return binary.LittleEndian.AppendUint32(dst, Magic) }
