package run

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the linker for releases:
//
//	go build -ldflags '-X github.com/farspeak/farspeak/internal/daemon/run.version=1.2.3'
var version string

// Build says what binary this is.
type Build struct {
	Version  string // of the release, of the module, or "devel"
	Revision string // of the source; empty when not recorded
	Modified bool   // the source differed from that revision
	Go       string
	Platform string // os/architecture
}

// ReadBuild returns what the linker and the Go tool have recorded.
func ReadBuild() Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return newBuild(version, info)
}

func newBuild(version string, info *debug.BuildInfo) Build {
	b := Build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "devel"
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// String is one line: 1.2.3 (0123456789ab, modified, go1.26 linux/amd64).
func (b Build) String() string {
	source := ""
	if b.Revision != "" {
		source = b.Revision[:min(len(b.Revision), 12)] + ", "
		if b.Modified {
			source += "modified, "
		}
	}
	return fmt.Sprintf("%s (%s%s %s)", b.Version, source, b.Go, b.Platform)
}
