package integration_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/farspeak/farspeak/internal/testmysql"
	"github.com/farspeak/farspeak/test/harness"
)

// programs are the daemons, built once for all tests.
var programs *harness.Programs

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == endpointFlag {
		os.Exit(runEndpoint(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == numbersFlag {
		os.Exit(runNumbers(os.Args[2:]))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if programs, err = harness.NewPrograms(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := programs.Remove(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	return testmysql.Run(m)
}
