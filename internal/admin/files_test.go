package admin_test

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/farspeak/farspeak/internal/admin"
	"github.com/farspeak/farspeak/internal/store"
	"github.com/farspeak/farspeak/internal/store/storetest"
	serverpb "github.com/farspeak/farspeak/proto/fleetspeak/server"
)

func TestFiles(t *testing.T) {
	onEachStore(t, storetest.Options{}, func(f *fixture) {
		put := func(data []byte) store.File {
			f.Helper()
			_, err := f.admin.StoreFile(f.ctx, &serverpb.StoreFileRequest{ServiceName: "shell", FileName: "tool", Data: data})
			f.must(err)
			info, err := f.real.StatFile(f.ctx, "shell", "tool")
			f.must(err)
			if info.Size != int64(len(data)) {
				f.Errorf("%d bytes stored, want %d", info.Size, len(data))
			}
			return info
		}
		first := put([]byte("content"))
		if again := put([]byte("content")); !again.Modified.After(first.Modified) {
			f.Errorf("the same content again: modified %v, before %v", again.Modified, first.Modified)
		}
		put(bytes.Repeat([]byte("0123456789abcdef"), 20<<16)) // 20 MiB, past the original's limits
		put(nil)
		for range 2 { // what is gone already is no error
			_, err := f.admin.DeleteFile(f.ctx, &serverpb.DeleteFileRequest{ServiceName: "shell", FileName: "tool"})
			f.must(err)
		}
		if _, err := f.real.StatFile(f.ctx, "shell", "tool"); err == nil {
			f.Error("the file is still there")
		}
	})
}

func TestFilesRefused(t *testing.T) {
	f := serve(t, storetest.NewSQLite(t), func(c *admin.Config) { c.MaxMessageBytes = 1 << 20 })
	for name, test := range map[string]struct {
		service, file string
		data          []byte
		code          codes.Code
	}{
		"no service":        {"", "tool", nil, codes.InvalidArgument},
		"no name":           {"shell", "", nil, codes.InvalidArgument},
		"long name":         {"shell", strings.Repeat("x", 129), nil, codes.InvalidArgument},
		"long service":      {strings.Repeat("x", 129), "tool", nil, codes.InvalidArgument},
		"past our own size": {"shell", "tool", make([]byte, 1<<20), codes.ResourceExhausted},
	} {
		_, err := f.admin.StoreFile(f.ctx, &serverpb.StoreFileRequest{ServiceName: test.service, FileName: test.file, Data: test.data})
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		wantCode(t, err, test.code)
		if test.service == "" || test.file == "" {
			_, err = f.admin.DeleteFile(f.ctx, &serverpb.DeleteFileRequest{ServiceName: test.service, FileName: test.file})
			wantCode(t, err, test.code)
		}
	}
}
