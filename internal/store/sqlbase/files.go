package sqlbase

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/farspeak/farspeak/internal/store"
)

const (
	// statFile reads one row by PRIMARY; lockFile locks it too.
	statFile = `SELECT generation, size, modified_us FROM files WHERE service = ? AND name = ?`
	lockFile = statFile + ` {lock}`

	upsertFile = `INSERT INTO files (service, name, generation, size, modified_us) VALUES {rows}
		{upsert service, name: generation size modified_us}`
	upsertFileRow = `(?, ?, ?, ?, {now})`

	// deleteFile deletes one row by PRIMARY.
	deleteFile = `DELETE FROM files WHERE service = ? AND name = ?`

	insertChunk    = `INSERT INTO file_chunks (service, name, generation, chunk, data) VALUES {rows}`
	insertChunkRow = `(?, ?, ?, ?, ?)`

	// readChunk reads one row by PRIMARY.
	readChunk = `SELECT data FROM file_chunks WHERE service = ? AND name = ? AND generation = ? AND chunk = ?`

	// deleteChunks deletes one range of PRIMARY.
	deleteChunks = `{delete file_chunks PRIMARY} WHERE service = ? AND name = ? AND generation = ? AND chunk >= ? AND chunk < ?`

	// chunkSize is the size of all chunks of a file but the last.
	chunkSize = 512 << 10
	// chunksPerDelete bounds one statement.
	chunksPerDelete = 16
)

// fileVersion is one content of a file.
type fileVersion struct {
	service, name string
	generation    []byte
}

func (f fileVersion) args(more ...any) []any {
	return append([]any{f.service, f.name, f.generation}, more...)
}

// newGeneration names a content; it starts with the time, so that what was abandoned can be found.
func newGeneration(now int64) []byte {
	generation := make([]byte, 16)
	binary.BigEndian.PutUint64(generation, uint64(now))
	rand.Read(generation[8:])
	return generation
}

// PutFile stores a file. Content and time are replaced as one, once all of r was read; until then, and when r fails, the
// file is as it was. r is read outside of transactions.
func (s *Store) PutFile(ctx context.Context, service, name string, r io.Reader) (err error) {
	defer s.op("PutFile", &err)()
	if err := errors.Join(checkName("service", service), checkName("file name", name)); err != nil {
		return err
	}
	now, err := s.read().now(ctx)
	if err != nil {
		return err
	}
	f := fileVersion{service, name, newGeneration(now)}
	size, chunks, err := s.putChunks(ctx, f, r)
	if err == nil {
		err = s.replaceFile(ctx, f, size)
	}
	if err != nil {
		// Best effort: Prune removes what stays behind.
		_ = s.removeChunks(context.WithoutCancel(ctx), f, chunks)
	}
	return err
}

func (s *Store) putChunks(ctx context.Context, f fileVersion, r io.Reader) (size, chunks int64, err error) {
	buf := make([]byte, chunkSize)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			row := f.args(chunks, buf[:n])
			if err := s.writeAlone(ctx, func(t session) error {
				_, err := t.insert(ctx, insertChunk, insertChunkRow, [][]any{row})
				return err
			}); err != nil {
				return size, chunks, err
			}
			chunks++
			size += int64(n)
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return size, chunks, nil
		case err != nil:
			return size, chunks, fmt.Errorf("read content: %w", err)
		}
	}
}

// replaceFile makes a new content the one that counts, and removes the old one.
func (s *Store) replaceFile(ctx context.Context, f fileVersion, size int64) error {
	var old fileVersion
	var oldSize int64
	err := s.write(ctx, func(t session) error {
		var err error
		if old, oldSize, err = t.lockFile(ctx, f.service, f.name); err != nil {
			return err
		}
		_, err = t.insert(ctx, upsertFile, upsertFileRow, [][]any{f.args(size)})
		return err
	})
	if err != nil || old.generation == nil {
		return err
	}
	// The new content counts already; Prune removes what stays behind.
	_ = s.removeChunks(ctx, old, chunksOf(oldSize))
	return nil
}

// lockFile locks the row of a file and returns its content, with no generation when there is none.
func (t session) lockFile(ctx context.Context, service, name string) (f fileVersion, size int64, err error) {
	var modified int64
	f = fileVersion{service: service, name: name}
	err = t.one(ctx, t.s.sql(lockFile), []any{service, name}, &f.generation, &size, &modified)
	if errors.Is(err, store.ErrNotFound) {
		return f, 0, nil
	}
	return f, size, err
}

func chunksOf(size int64) int64 { return (size + chunkSize - 1) / chunkSize }

func (s *Store) removeChunks(ctx context.Context, f fileVersion, chunks int64) error {
	for first := int64(0); first < chunks; first += chunksPerDelete {
		err := s.writeAlone(ctx, func(t session) error {
			_, err := t.exec(ctx, s.sql(deleteChunks), f.args(first, first+chunksPerDelete)...)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// DeleteFile removes a file. One that is missing is no error.
func (s *Store) DeleteFile(ctx context.Context, service, name string) (err error) {
	defer s.op("DeleteFile", &err)()
	var old fileVersion
	var size int64
	err = s.write(ctx, func(t session) error {
		var err error
		if old, size, err = t.lockFile(ctx, service, name); err != nil || old.generation == nil {
			return err
		}
		_, err = t.exec(ctx, s.sql(deleteFile), service, name)
		return err
	})
	if err != nil {
		return err
	}
	return s.removeChunks(ctx, old, chunksOf(size))
}

// StatFile returns size and time of a file. A missing one is store.ErrNotFound.
func (s *Store) StatFile(ctx context.Context, service, name string) (_ store.File, err error) {
	defer s.op("StatFile", &err)()
	_, file, err := s.statFile(ctx, service, name)
	return file, err
}

func (s *Store) statFile(ctx context.Context, service, name string) (fileVersion, store.File, error) {
	f := fileVersion{service: service, name: name}
	var size, modified int64
	err := s.read().one(ctx, s.sql(statFile), []any{service, name}, &f.generation, &size, &modified)
	if err != nil {
		return f, store.File{}, err
	}
	return f, store.File{Service: service, Name: name, Size: size, Modified: time.UnixMicro(modified).UTC()}, nil
}
