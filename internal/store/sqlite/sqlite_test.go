package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/farspeak/farspeak/internal/store/sqlite"
)

func TestOpen(t *testing.T) {
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "x.db")})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
