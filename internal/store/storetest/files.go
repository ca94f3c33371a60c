package storetest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing/iotest"

	"github.com/farspeak/farspeak/internal/store"
)

var fileTests = []test{
	{name: "PutOpenDelete", run: testFiles},
	{name: "Replace_G41", run: testReplaceFile},
	{name: "FailedUpload", run: testFailedUpload},
	{name: "Seek", run: testSeek},
	{name: "ReplacedWhileRead", run: testReplacedWhileRead},
	{name: "Names_G41", run: testFileNames},
}

// content is n bytes that no chunk repeats.
func content(n int) []byte {
	b := make([]byte, n)
	random := rand.New(rand.NewPCG(uint64(n), 1))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

func (f *fixture) put(service, name string, b []byte) {
	f.Helper()
	f.must(f.s.PutFile(f.ctx, service, name, bytes.NewReader(b)))
}

func (f *fixture) readFile(service, name string) []byte {
	f.Helper()
	r, err := f.s.OpenFile(f.ctx, service, name)
	f.must(err)
	b, err := io.ReadAll(r)
	f.must(err)
	f.must(r.Close())
	return b
}

func testFiles(f *fixture) {
	const chunk = 512 << 10
	for _, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, 5*chunk + 7} {
		want := content(size)
		f.put("system", "file", want)
		info, err := f.s.StatFile(f.ctx, "system", "file")
		if err != nil || info.Size != int64(size) || !recent(info.Modified) || info.Service != "system" || info.Name != "file" {
			f.Errorf("%d bytes: stat %+v, %v", size, info, err)
		}
		if got := f.readFile("system", "file"); !bytes.Equal(got, want) {
			f.Errorf("%d bytes come back as %d", size, len(got))
		}
	}
	for range 2 {
		f.must(f.s.DeleteFile(f.ctx, "system", "file"))
	}
	if _, err := f.s.StatFile(f.ctx, "system", "file"); !errors.Is(err, store.ErrNotFound) {
		f.Errorf("stat of a deleted file: %v", err)
	}
	if _, err := f.s.OpenFile(f.ctx, "system", "file"); !errors.Is(err, store.ErrNotFound) {
		f.Errorf("open of a deleted file: %v", err)
	}
	if n := f.db.Count(f, "SELECT COUNT(*) FROM file_chunks"); n != 0 {
		f.Errorf("%d chunks stay behind", n)
	}
}

func testReplaceFile(f *fixture) { // G-41: times tell apart contents that follow each other at once, also equal ones
	var last store.File
	for i := range 3 {
		f.put("s", "n", []byte("same"))
		info, err := f.s.StatFile(f.ctx, "s", "n")
		f.must(err)
		if i > 0 && !info.Modified.After(last.Modified) {
			f.Errorf("modified %v, before %v", info.Modified, last.Modified)
		}
		last = info
	}
	f.put("s", "other", []byte("x"))
	f.put("S", "n", []byte("y"))
	if got := f.readFile("s", "n"); string(got) != "same" {
		f.Errorf("content %q", got)
	}
	if n := f.db.Count(f, "SELECT COUNT(*) FROM file_chunks"); n != 3 {
		f.Errorf("%d chunks for three files of one chunk", n)
	}
}

func testFailedUpload(f *fixture) {
	f.put("s", "n", []byte("old"))
	broken := errors.New("connection lost")
	err := f.s.PutFile(f.ctx, "s", "n", io.MultiReader(bytes.NewReader(content(3<<20)), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		f.Errorf("PutFile = %v, want the reader's error", err)
	}
	if got := f.readFile("s", "n"); string(got) != "old" {
		f.Errorf("a failed upload left %d bytes", len(got))
	}
	if n := f.db.Count(f, "SELECT COUNT(*) FROM file_chunks"); n != 1 {
		f.Errorf("%d chunks, want that of the old content", n)
	}
}

func testSeek(f *fixture) {
	want := content(1<<20 + 100)
	f.put("s", "n", want)
	r, err := f.s.OpenFile(f.ctx, "s", "n")
	f.must(err)
	if err := iotest.TestReader(r, want); err != nil {
		f.Error(err)
	}
	if _, err := r.Seek(-1, io.SeekStart); err == nil {
		f.Error("seek to before the start was taken")
	}
	if _, err := r.Seek(0, 9); err == nil {
		f.Error("an unknown whence was taken")
	}
	if at, err := r.Seek(10, io.SeekEnd); err != nil || at != int64(len(want))+10 {
		f.Errorf("seek past the end: %d, %v", at, err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		f.Errorf("read past the end: %v", err)
	}
	if r.Info().Size != int64(len(want)) {
		f.Errorf("info %+v", r.Info())
	}
}

func testReplacedWhileRead(f *fixture) {
	f.put("s", "n", content(2<<20))
	r, err := f.s.OpenFile(f.ctx, "s", "n")
	f.must(err)
	if _, err := r.Read(make([]byte, 10)); err != nil {
		f.Fatal(err)
	}
	f.put("s", "n", content(2<<20+1))
	if _, err := io.ReadAll(r); !errors.Is(err, store.ErrNotFound) {
		f.Errorf("reading on: %v, want an error rather than two contents mixed", err)
	}
}

func testFileNames(f *fixture) { // G-41
	names := []string{"..", "../../etc/passwd", "a/b", "a%2Fb", "A", "a", "a ", "", "\x00", "日本語", strings.Repeat("é", store.MaxName)}
	for i, name := range names {
		f.put("s", name, []byte{byte(i)})
	}
	for i, name := range names {
		if got := f.readFile("s", name); len(got) != 1 || got[0] != byte(i) {
			f.Errorf("file %q has content %v, want %d", name, got, i)
		}
	}
	long := strings.Repeat("x", store.MaxName+1)
	for _, tc := range [][2]string{{"s", long}, {long, "n"}} {
		if err := f.s.PutFile(f.ctx, tc[0], tc[1], strings.NewReader("x")); !errors.Is(err, store.ErrInvalid) {
			f.Errorf("a long name: %v, want ErrInvalid", err)
		}
	}
}
