package mysql_test

import (
	"os"
	"testing"
	"time"

	"github.com/farspeak/farspeak/internal/store/mysql"
	"github.com/farspeak/farspeak/internal/testmysql"
)

func TestMain(m *testing.M) { os.Exit(testmysql.Run(m)) }

func TestOpen(t *testing.T) {
	for range 3 {
		dsn := testmysql.NewDatabase(t)
		st := time.Now()
		s, err := mysql.Open(t.Context(), mysql.Config{DSN: dsn})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(s.CheckSchema(t.Context()))
		names, err := s.Migrate(t.Context())
		t.Log(names, err, time.Since(st))
		if err := s.CheckSchema(t.Context()); err != nil {
			t.Fatal(err)
		}
		names, err = s.Migrate(t.Context())
		t.Log(names, err, time.Since(st))
		s.Close()
		t.Log(time.Since(st))
	}
}
