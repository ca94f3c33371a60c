// Package harness runs a whole installation as separate processes, for tests: Farspeak's own daemons from freshly built
// binaries, MariaDB, HAProxy, and beside them, in the test's process, a backend and an admin client.
//
// Every process that a test starts ends with the test, writes to a log file of its own, and shows the end of it when the
// test fails. A daemon's log with a data race or a panic fails the test. Nothing waits for a fixed time: Eventually polls
// what can be observed.
//
// The processes are Linux's: /proc tells their memory, and the kernel ends them with the test.
package harness
