package spool

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxSegmentRead is the most that is read of one file: a segment that was not full, and a shared write on top, which is
// bounded by what senders may hold.
const maxSegmentRead = 128 << 20

// segment is one file, called by its number and its mark.
type segment struct {
	path   string
	number uint64
	mark   mark
	size   int64 // of what is known to be written
	live   int   // messages that the index has in it

	removed []uint64 // what a damaged file says was removed, during recovery
}

const segmentSuffix = ".seg"

// newSegment makes a name; the file does not exist yet.
func newSegment(dir string, number uint64) *segment {
	seg := &segment{number: number}
	rand.Read(seg.mark[:])
	seg.path = filepath.Join(dir, fmt.Sprintf("%016x-%x%s", number, seg.mark, segmentSuffix))
	return seg
}

// segmentOf takes a path apart; ok says that it is one of a segment.
func segmentOf(path string) (seg *segment, ok bool) {
	name, isSegment := strings.CutSuffix(filepath.Base(path), segmentSuffix)
	number, text, isPair := strings.Cut(name, "-")
	if !isSegment || !isPair || len(number) != 16 {
		return nil, false
	}
	n, err := strconv.ParseUint(number, 16, 64)
	if err != nil {
		return nil, false
	}
	m, err := hex.DecodeString(text)
	if err != nil || len(m) != markSize {
		return nil, false
	}
	return &segment{path: path, number: n, mark: mark(m)}, true
}

// create makes the file, open for writing.
func (seg *segment) create() (*os.File, error) {
	return os.OpenFile(seg.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// read reads the record of a message.
func (seg *segment) read(at place) (record, error) {
	f, err := os.Open(seg.path)
	if err != nil {
		return record{}, err
	}
	defer f.Close()
	b := make([]byte, headerSize+at.size)
	if _, err := f.ReadAt(b, at.offset); err != nil {
		return record{}, err
	}
	return parseRecord(b, seg.mark)
}
