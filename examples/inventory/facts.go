package main

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A fact is something to ask a machine for. Its service is a Stdin service on the clients, and the service of the same
// name on the server side takes the answers: a Stdin service always answers to its own name.
type fact struct {
	service string
	// args follow the request ID, which every service prints as the first line of its answer.
	args func(files []string) []string
	// read turns the rest of the answer into lines for people.
	read func(output []byte) []string
}

var facts = []fact{
	{"inventory-kernel", noArgs, readLines},
	{"inventory-disks", noArgs, readDisks},
	{"inventory-processes", noArgs, readProcesses},
	{"inventory-checksums", slices.Clone[[]string], readChecksums},
}

func noArgs([]string) []string { return nil }

// splitAnswer takes the request ID off an answer.
func splitAnswer(output []byte) (request string, rest []byte, ok bool) {
	line, rest, found := bytes.Cut(output, []byte("\n"))
	request, named := strings.CutPrefix(string(line), "request=")
	return request, rest, found && named
}

func readLines(output []byte) []string {
	var lines []string
	for line := range strings.Lines(string(output)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

// readDisks reads the output of df -P -k, largest file system first.
func readDisks(output []byte) []string {
	type disk struct {
		kib  int
		text string
	}
	var disks []disk
	for _, line := range readLines(output) {
		columns := strings.Fields(line)
		if len(columns) < 6 {
			continue
		}
		kib, err := strconv.Atoi(columns[1])
		if err != nil || kib == 0 { // the head, or no real file system
			continue
		}
		disks = append(disks, disk{kib, fmt.Sprintf("%.1f GiB, %s used, on %s", float64(kib)/(1<<20), columns[4], columns[5])})
	}
	slices.SortStableFunc(disks, func(a, b disk) int { return b.kib - a.kib })
	var lines []string
	for _, d := range disks[:min(3, len(disks))] {
		lines = append(lines, d.text)
	}
	return lines
}

// readProcesses reads lines of /proc/PID/stat: PID (name) state …, and the name may hold anything.
func readProcesses(output []byte) []string {
	states := map[string]int{}
	total := 0
	for _, line := range readLines(output) {
		_, after, ok := strings.Cut(line[strings.LastIndexByte(line, ')')+1:], " ")
		if !ok || after == "" {
			continue
		}
		total++
		states[after[:1]]++
	}
	if total == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%d processes, %d running, %d sleeping", total, states["R"], states["S"]+states["I"])}
}

// readChecksums shortens the output of sha256sum.
func readChecksums(output []byte) []string {
	var lines []string
	for _, line := range readLines(output) {
		if sum, file, ok := strings.Cut(line, "  "); ok && len(sum) == 64 {
			lines = append(lines, sum[:16]+"… "+file)
		}
	}
	return lines
}
