package measure

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"sync"
)

// maxSeen bounds the numbers in a set: 128 MiB of memory. Larger ones count as new each time.
const maxSeen = 1 << 30

// Seen is a set of sequence numbers, dense from 0 on. It is safe for concurrent use.
type Seen struct {
	mu   sync.Mutex
	bits []uint64 // guarded by mu
}

// NewSeen returns an empty set.
func NewSeen() *Seen { return &Seen{} }

// Add puts a number in and says whether it was missing.
func (s *Seen) Add(n uint64) bool {
	if n >= maxSeen {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	word, bit := int(n/64), uint64(1)<<(n%64)
	if word >= len(s.bits) {
		s.bits = append(s.bits, make([]uint64, word+1-len(s.bits))...)
	}
	added := s.bits[word]&bit == 0
	s.bits[word] |= bit
	return added
}

// Count is how many numbers are in the set.
func (s *Seen) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := 0
	for _, word := range s.bits {
		count += bits.OnesCount64(word)
	}
	return count
}

// CountBelow is how many numbers below n are in the set.
func (s *Seen) CountBelow(n uint64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := 0
	for i, word := range s.bits {
		start := uint64(i) * 64
		if start >= n {
			break
		}
		if left := n - start; left < 64 {
			word &= 1<<left - 1
		}
		count += bits.OnesCount64(word)
	}
	return count
}

// CountMissing is how many numbers of the set are not in the other one.
func (s *Seen) CountMissing(other *Seen) int {
	theirs := other.words()
	missing := 0
	for i, word := range s.words() {
		if i < len(theirs) {
			word &^= theirs[i]
		}
		missing += bits.OnesCount64(word)
	}
	return missing
}

func (s *Seen) words() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.bits)
}

// Merge adds all numbers of the other set.
func (s *Seen) Merge(other *Seen) {
	theirs := other.words()
	s.mu.Lock()
	defer s.mu.Unlock()
	if missing := len(theirs) - len(s.bits); missing > 0 {
		s.bits = append(s.bits, make([]uint64, missing)...)
	}
	for i, word := range theirs {
		s.bits[i] |= word
	}
}

// MarshalBinary compresses the set.
func (s *Seen) MarshalBinary() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	if err := binary.Write(w, binary.LittleEndian, s.bits); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// UnmarshalBinary reads what MarshalBinary made.
func (s *Seen) UnmarshalBinary(data []byte) error {
	r, err := zlib.NewReader(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("set of numbers: %w", err)
	}
	raw, err := io.ReadAll(io.LimitReader(r, maxSeen/8+1))
	if err != nil {
		return fmt.Errorf("set of numbers: %w", err)
	}
	words := make([]uint64, len(raw)/8)
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(raw[8*i:])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bits = words
	return nil
}
