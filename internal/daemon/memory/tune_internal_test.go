package memory

import (
	"math"
	"runtime"
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
	defer untune()
	large, small := files(map[string]string{"proc/meminfo": machine}), files(map[string]string{"proc/meminfo": "MemTotal: 131072 kB\n"})
	for name, tc := range map[string]struct {
		env     map[string]string
		root    fstest.MapFS
		percent int
		limit   int64
		ballast int
	}{
		"nothing set":   {nil, large, percent, 3 << 30, ballastBytes},
		"little memory": {nil, small, percent, 96 << 20, 6 << 20},
		"GOGC":          {map[string]string{"GOGC": "50"}, large, 100, 3 << 30, 0},
		"GOMEMLIMIT":    {map[string]string{"GOMEMLIMIT": "1GiB"}, large, percent, math.MaxInt64, ballastBytes},
	} {
		untune()
		Tune(func(name string) string { return tc.env[name] }, tc.root)
		if percent, limit, ballast := untune(); percent != tc.percent || limit != tc.limit || ballast != tc.ballast {
			t.Errorf("%s: GOGC %d, limit %d, ballast %d; want %d, %d, %d",
				name, percent, limit, ballast, tc.percent, tc.limit, tc.ballast)
		}
	}
}

// untune takes back what Tune did, and returns it.
func untune() (percent int, limit int64, size int) {
	size, ballast = len(ballast), nil
	return debug.SetGCPercent(100), debug.SetMemoryLimit(math.MaxInt64), size
}

// garbage is made so that the compiler cannot leave it out.
var garbage []byte

// With little in use the collector waits for much garbage.
func TestFewCollections(t *testing.T) {
	defer untune()
	Tune(func(string) string { return "" }, files(nil))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 32 << 10 { // 32 MiB
		garbage = make([]byte, 1<<10)
	}
	runtime.ReadMemStats(&after)
	if n := after.NumGC - before.NumGC; n > 1 { // one may be due for another reason
		t.Errorf("%d collections for 32 MiB of garbage", n)
	}
}
