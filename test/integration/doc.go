// Package integration holds the tests that run whole installations: real daemons as separate processes, real fs-clients
// and hundreds of fake agents, MariaDB and SQLite, HAProxy with PROXY headers, tinyproxy for agents, and a backend.
//
// Each test owns its installation. What a test waits for is always something that can be observed; what it counts is
// printed, so that `go test -v ./test/integration/` shows figures and not only verdicts.
//
// MariaDB, HAProxy and tinyproxy have to be installed, and the test of a full disk mounts a small file system of its own,
// which takes root. A test whose means are missing fails.
//
// Tests whose figures say something about speed or memory run one at a time; the others run in parallel after them.
package integration
