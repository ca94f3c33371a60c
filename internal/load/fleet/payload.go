package fleet

import "encoding/binary"

// StampSize is the smallest payload of a load message, in bytes: the stamp that it begins with.
//
//	4  "FSL", kind
//	4  index of the client that it is for or from, little endian as the rest
//	8  run
//	8  sequence number, from 0 on
//	8  when it was due to be sent, ns since 1970
const StampSize = 32

// Kind says what a load message is.
type Kind byte

// Kinds of load messages.
const (
	Up        Kind = 'u' // from a client; numbered per client
	Down      Kind = 'd' // to one client; numbered over all
	Broadcast Kind = 'b' // to all clients; its index is unused, its number is the broadcast's
)

// Stamp is how a load message is recognized at its destination.
type Stamp struct {
	Kind     Kind
	Index    int
	Run      uint64
	Sequence uint64
	Sent     int64 // ns since 1970
}

// AppendPayload appends a payload of size bytes.
func (s Stamp) AppendPayload(dst []byte, size int) []byte {
	dst = append(dst, 'F', 'S', 'L', byte(s.Kind))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(s.Index))
	dst = binary.LittleEndian.AppendUint64(dst, s.Run)
	dst = binary.LittleEndian.AppendUint64(dst, s.Sequence)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.Sent))
	return append(dst, filler(size-StampSize)...)
}

// ParseStamp reads the stamp of a payload; ok is false when it is not one of ours.
func ParseStamp(payload []byte) (s Stamp, ok bool) {
	if len(payload) < StampSize || string(payload[:3]) != "FSL" {
		return Stamp{}, false
	}
	return Stamp{
		Kind:     Kind(payload[3]),
		Index:    int(binary.LittleEndian.Uint32(payload[4:])),
		Run:      binary.LittleEndian.Uint64(payload[8:]),
		Sequence: binary.LittleEndian.Uint64(payload[16:]),
		Sent:     int64(binary.LittleEndian.Uint64(payload[24:])),
	}, true
}

// filler is n bytes that compress as little as a typical payload: they repeat after a few KiB.
func filler(n int) []byte {
	if n <= 0 {
		return nil
	}
	if n <= len(fillerText) {
		return fillerText[:n]
	}
	b := make([]byte, n)
	for done := 0; done < n; {
		done += copy(b[done:], fillerText)
	}
	return b
}

var fillerText = func() []byte {
	b := make([]byte, 4096)
	state := uint32(1)
	for i := range b {
		state = state*1664525 + 1013904223
		b[i] = "0123456789abcdef"[state>>28]
	}
	return b
}()
