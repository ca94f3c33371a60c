package memory

import (
	"math"
	"runtime/debug"
	"testing"
	"testing/fstest"
)

// files makes a root with these files.
func files(content map[string]string) fstest.MapFS {
	root := fstest.MapFS{}
	for name, text := range content {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return root
}

const machine = "MemFree:  1 kB\nMemTotal:       4194304 kB\nSwapTotal: 0 kB\n" // 4 GiB

func TestLimit(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nothing known":      {nil, 0},
		"garbled":            {map[string]string{"proc/meminfo": "MemTotal: many kB\n", "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "?"}, 0},
		"machine":            {map[string]string{"proc/meminfo": machine}, 3 << 30},
		"groups without any": {map[string]string{"proc/meminfo": machine, "proc/self/cgroup": "1:cpu:/x\n0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}, 3 << 30},
		"own group": {map[string]string{
			"proc/meminfo": machine, "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "1073741824\n",
		}, 3 << 28},
		"group above, soft limit": {map[string]string{
			"proc/meminfo": machine, "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.high": "1073741824\n",
		}, 3 << 28},
		"container":          {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1073741824\n"}, 3 << 28},
		"more than there is": {map[string]string{"proc/meminfo": machine, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "8589934592\n"}, 3 << 30},
	} {
		if got := limit(files(tc.files)); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

// The environment of the operator wins.
func TestTune(t *testing.T) {
	restore := func() (int, int64) { return debug.SetGCPercent(100), debug.SetMemoryLimit(math.MaxInt64) }
	defer restore()
	root := files(map[string]string{"proc/meminfo": machine})
	for name, tc := range map[string]struct {
		env     map[string]string
		percent int
		limit   int64
	}{
		"nothing set": {nil, percent, 3 << 30},
		"GOGC":        {map[string]string{"GOGC": "50"}, 100, 3 << 30},
		"GOMEMLIMIT":  {map[string]string{"GOMEMLIMIT": "1GiB"}, percent, math.MaxInt64},
	} {
		restore()
		Tune(func(name string) string { return tc.env[name] }, root)
		if percent, limit := restore(); percent != tc.percent || limit != tc.limit {
			t.Errorf("%s: GOGC %d, limit %d; want %d, %d", name, percent, limit, tc.percent, tc.limit)
		}
	}
}
