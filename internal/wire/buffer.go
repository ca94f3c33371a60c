package wire

import (
	"math/bits"
	"sync"
)

const (
	// firstBuffer is where a buffer starts. It is not drawn from the budget.
	firstBuffer = 4 << 10
	// maxPooled is the largest buffer that is kept for reuse; larger ones are rare and left to the collector.
	maxPooled = 1 << 20

	firstClass = 12 // firstBuffer is 1 << firstClass
	lastClass  = 20 // maxPooled is 1 << lastClass
)

// pools holds free buffers by size class, powers of two from firstBuffer to maxPooled.
var pools [lastClass - firstClass + 1]sync.Pool

// class is the index in pools of the smallest class that holds size bytes, or -1 when none does.
func class(size int) int {
	switch {
	case size <= firstBuffer:
		return 0
	case size > maxPooled:
		return -1
	}
	return bits.Len(uint(size-1)) - firstClass
}

// getBuffer returns a buffer of length size, or of the length of its class when it has one.
func getBuffer(size int) *[]byte {
	c := class(size)
	if c < 0 {
		b := make([]byte, size)
		return &b
	}
	if b, ok := pools[c].Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, firstBuffer<<c)
	return &b
}

// putBuffer takes back what getBuffer gave.
func putBuffer(b *[]byte) {
	if c := class(len(*b)); c >= 0 {
		pools[c].Put(b)
	}
}

// growing is a buffer that follows the data that arrives, and pays for its size.
type growing struct {
	memory  Memory  // nil means that nothing is accounted for
	buffer  *[]byte // nil before the first byte
	charged int
}

// bytes is all of the buffer, in use or not.
func (g *growing) bytes() []byte {
	if g.buffer == nil {
		return nil
	}
	return *g.buffer
}

// grow doubles the buffer, or makes it want bytes long when that is enough. The first used bytes are kept.
func (g *growing) grow(used, want int) error {
	if g.buffer == nil {
		g.buffer = getBuffer(firstBuffer)
		return nil
	}
	size := 2 * len(*g.buffer)
	if size > maxPooled {
		size = min(size, want)
	}
	if g.memory != nil {
		if err := g.memory.Acquire(size); err != nil {
			return err
		}
	}
	larger := getBuffer(size)
	copy(*larger, (*g.buffer)[:used])
	g.free()
	g.buffer, g.charged = larger, size
	return nil
}

// free gives buffer and budget back. It may be called again.
func (g *growing) free() {
	if g.buffer == nil {
		return
	}
	putBuffer(g.buffer)
	if g.memory != nil && g.charged > 0 {
		g.memory.Release(g.charged)
	}
	g.buffer, g.charged = nil, 0
}
