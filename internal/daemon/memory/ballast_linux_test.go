package memory

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"unsafe"
)

// freshProcess says that a test runs in a process of its own.
const freshProcess = "FARSPEAK_FRESH_PROCESS"

// The ballast costs no memory. That holds at the start of a process, where nothing was freed that it could be put into.
func TestBallastIsNotResident(t *testing.T) {
	if os.Getenv(freshProcess) == "" {
		test := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
		test.Env = append(os.Environ(), freshProcess+"=1")
		if out, err := test.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	Tune(func(string) string { return "" }, files(nil))
	if len(ballast) != ballastBytes {
		t.Fatalf("%d bytes of ballast, want %d", len(ballast), ballastBytes)
	}
	if pages := residentPages(t, ballast); pages > 0 {
		t.Errorf("%d of the ballast's pages are in memory", pages)
	}
}

// residentPages is how many pages of b, which begins with one, are in memory.
func residentPages(t *testing.T, b []byte) (pages int) {
	t.Helper()
	in := make([]byte, len(b)/os.Getpagesize())
	from, into := unsafe.Pointer(unsafe.SliceData(b)), unsafe.Pointer(unsafe.SliceData(in))
	if _, _, errno := syscall.Syscall(syscall.SYS_MINCORE, uintptr(from), uintptr(len(b)), uintptr(into)); errno != 0 {
		t.Fatal(errno)
	}
	for _, state := range in {
		pages += int(state & 1)
	}
	return pages
}
