//go:build unix

package spool_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/farspeak/farspeak/internal/agent/spool"
)

const childVariable = "SPOOL_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVariable); dir != "" {
		os.Exit(appendUntilKilled(dir))
	}
	os.Exit(m.Run())
}

// appendUntilKilled is the child: it prints the number of each message that it appended, and of each one that it is about
// to remove.
func appendUntilKilled(dir string) int {
	s, found, err := spool.Open(spool.Config{Dir: dir, Sync: spool.SyncNever}) // the system survives
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if len(found.Aside) > 0 {
		fmt.Println("damaged", found.Aside)
	}
	next := found.LastID + 1
	var senders sync.WaitGroup
	for w := range uint64(4) {
		senders.Go(func() {
			for id := next + w; ; id += 4 {
				if err := s.Append(id, 0, body(id)); err != nil {
					fmt.Println(err)
					return
				}
				fmt.Printf("+%d\n", id)
				if id%3 == 0 {
					fmt.Printf("-%d\n", id)
					if err := s.Remove(id); err != nil {
						fmt.Println(err)
						return
					}
				}
			}
		})
	}
	senders.Wait()
	return 1
}

// Whatever was appended is there after kill -9 (G-11).
func TestAppendedMessagesSurviveKill(t *testing.T) {
	const kills = 60
	cfg := spool.Config{Dir: t.TempDir(), Sync: spool.SyncNever}
	expected := map[uint64]bool{}
	total := 0
	for range kills {
		for _, line := range runAndKill(t, cfg.Dir, 1+rand.IntN(100)) {
			id, err := strconv.ParseUint(line[1:], 10, 64)
			if err != nil {
				t.Fatalf("the child says %q", line)
			}
			if line[0] == '+' {
				expected[id] = true
				total++
			} else {
				delete(expected, id)
			}
		}
		s, found, err := spool.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		there := ids(found)
		for id := range expected {
			if _, present := slices.BinarySearch(there, id); !present {
				t.Fatalf("message %d is lost", id)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d messages were appended, %d are expected", kills, total, len(expected))
}

// runAndKill runs the child until it has said something a few times, and returns all it said.
func runAndKill(t *testing.T, dir string, lines int) []string {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childVariable+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var said []string
	for scanner := bufio.NewScanner(out); scanner.Scan(); {
		if line := scanner.Text(); strings.HasPrefix(line, "+") || strings.HasPrefix(line, "-") {
			said = append(said, line)
		} else {
			t.Errorf("the child says %q", line)
		}
		if len(said) == lines {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = child.Wait() // it was killed
	return said
}
