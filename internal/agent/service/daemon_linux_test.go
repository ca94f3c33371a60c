package service_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	daemonpb "github.com/farspeak/farspeak/proto/fleetspeak/daemonservice"
)

func TestDaemonEnvironment(t *testing.T) {
	t.Setenv("FARSPEAK_TEST_INHERITED", "yes")
	t.Setenv("FLEETSPEAK_CLIENT_ID", "not mine")
	d := newDesk()
	startDaemon(t, d, &daemonpb.Config{Argv: argv(t, "facts")}, quick)
	d.next(t, 5)
	var got []string
	for _, m := range d.messages() {
		got = append(got, textOf(t, m))
	}
	want := []string{"id 0001020304050607", "in 3", "out 4", "inherited yes", "open 0=/dev/null 1=/dev/null 2=/dev/null 3=pipe 4=pipe",
		"leader true"}
	if !slices.Equal(got, want) {
		t.Errorf("facts are\n%q, want\n%q", got, want)
	}
}

// What a process leaves unread is given to the next one, in order and once. // G-15
func TestDaemonRedelivery(t *testing.T) {
	t.Parallel()
	for name, lazy := range map[string]bool{"lazy": true, "not lazy": false} {
		t.Run(name, func(t *testing.T) {
			d := newDesk()
			leave := filepath.Join(t.TempDir(), "leave")
			config := &daemonpb.Config{Argv: argv(t, "reader", "2", leave), LazyStart: lazy}
			svc := startDaemon(t, d, config, quick)
			const messages = 7 // the first process reads two, with five more in its pipe
			for i := range messages {
				process(t, svc, textMessage(t, strconv.Itoa(i), ""))
			}
			if err := os.WriteFile(leave, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			d.next(t, messages-1)
			var got []string
			for _, m := range d.messages() {
				got = append(got, textOf(t, m))
			}
			if want := []string{"0", "1", "2", "3", "4", "5", "6"}; !slices.Equal(got, want) {
				t.Errorf("messages were read as %v", got)
			}
		})
	}
}
