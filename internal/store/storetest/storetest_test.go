package storetest_test

import (
	"os"
	"testing"

	"github.com/farspeak/farspeak/internal/store/storetest"
	"github.com/farspeak/farspeak/internal/testmysql"
)

func TestMain(m *testing.M) { os.Exit(testmysql.Run(m)) }

func TestSQLite(t *testing.T) { storetest.RunConformance(t, storetest.SQLiteDatabase) }

func TestMySQL(t *testing.T) { storetest.RunConformance(t, storetest.MySQLDatabase) }
