package sqlbase

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/farspeak/farspeak/internal/store"
)

// FileReader reads one content of a file, a chunk at a time. It is not safe for concurrent use.
type FileReader struct {
	s       *Store
	ctx     context.Context // of OpenFile: io.Reader has no place for one
	version fileVersion
	info    store.File

	at    int64  // position
	chunk []byte // holds the position, when index says so
	index int64  // of chunk; -1 for none
}

// OpenFile opens a file for reading. A missing one is store.ErrNotFound. ctx bounds all reading. When the file is replaced
// or deleted meanwhile, reading fails rather than mix two contents.
func (s *Store) OpenFile(ctx context.Context, service, name string) (_ *FileReader, err error) {
	defer s.op("OpenFile", &err)()
	version, info, err := s.statFile(ctx, service, name)
	if err != nil {
		return nil, err
	}
	return &FileReader{s: s, ctx: ctx, version: version, info: info, index: -1}, nil
}

// Info returns size and time of the content that is read.
func (f *FileReader) Info() store.File { return f.info }

// Read implements io.Reader.
func (f *FileReader) Read(p []byte) (int, error) {
	if f.at >= f.info.Size {
		return 0, io.EOF
	}
	if index := f.at / chunkSize; index != f.index {
		if err := f.load(index); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.chunk[f.at%chunkSize:])
	f.at += int64(n)
	return n, nil
}

func (f *FileReader) load(index int64) (err error) {
	defer f.s.op("ReadFile", &err)()
	f.index = -1
	err = f.s.read().one(f.ctx, f.s.sql(readChunk), f.version.args(index), &f.chunk)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: %s/%s was replaced while it was read", store.ErrNotFound, f.info.Service, f.info.Name)
	}
	if err != nil {
		return err
	}
	if want := min(chunkSize, f.info.Size-index*chunkSize); int64(len(f.chunk)) != want {
		return fmt.Errorf("chunk %d of %s/%s has %d bytes, want %d", index, f.info.Service, f.info.Name, len(f.chunk), want)
	}
	f.index = index
	return nil
}

// Seek implements io.Seeker.
func (f *FileReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.info.Size
	default:
		return 0, fmt.Errorf("seek: whence %d", whence)
	}
	if offset < 0 {
		return 0, errors.New("seek: negative position")
	}
	f.at = offset
	return offset, nil
}

// Close implements io.Closer. It frees the chunk; nothing else is held.
func (f *FileReader) Close() error {
	f.chunk, f.index = nil, -1
	return nil
}
