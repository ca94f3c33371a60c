// Package config reads the configuration files of fs-server and fs-admin strictly and turns them into plain values.
//
// components.config (the original's fleetspeak.components.Config with Farspeak's optional fields) may serve a whole
// machine: each daemon takes its part and is not stopped by a broken rule in another daemon's part. Text faults, such as
// an unknown field, concern everybody. services.config (fleetspeak.server.ServerConfig) is fs-server's alone.
//
// Every problem names file, line, field and remedy, and all problems of a file are reported at once. Files that the
// configuration names (certificates, keys, secrets) are read here, with bounded size; relative paths count from the
// working directory. The package opens no database, binds no port and resolves no name. Defaults and bounds of every
// setting are in defaults.go and nowhere else.
package config

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/farspeak/farspeak/internal/config/textpb"
	settingspb "github.com/farspeak/farspeak/proto/farspeak/settings"
	componentspb "github.com/farspeak/farspeak/proto/fleetspeak/components"
)

// Part is the part of components.config that one daemon cannot do without.
type Part int

// The parts.
const (
	ServerPart Part = 1 << iota // https_config
	AdminPart                   // admin_config
)

// File is a components.config that was read. It is immutable and safe for concurrent use.
type File struct {
	doc  *textpb.Document
	pb   *componentspb.Config
	mode fs.FileMode
	now  time.Time // for the dates of certificates
}

// Load reads a components file. It fails when the file cannot be read or is not valid text; the error then has a line for
// each problem, broken rules included.
func Load(path string) (*File, error) {
	text, err := textpb.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := parse(path, text)
	if st, err := os.Stat(path); err == nil {
		f.mode = st.Mode()
	}
	if faults := f.doc.Faults(); len(faults) > 0 {
		return nil, textpb.Join(faults, f.Check(0)).Err()
	}
	return f, nil
}

func parse(path string, text []byte) *File {
	f := &File{pb: &componentspb.Config{}, now: time.Now()}
	f.doc = textpb.Parse(path, text, f.pb)
	return f
}

func (f *File) settings() *settingspb.Settings { return f.pb.GetFarspeak() }

// Check applies every rule to every part and returns all problems, warnings among them. Parts in need have to be there;
// others are checked when they are.
func (f *File) Check(need Part) textpb.Problems {
	r := f.doc.NewReport()
	f.server(r, need&ServerPart != 0)
	f.admin(r, need&AdminPart != 0)
	f.store(r)
	f.conflicts(r)
	return r.Problems()
}

// CheckFiles does the work of --check_config: it writes all problems of the files to w, a line each, and returns an error
// when one of them would keep a daemon from starting. An empty services path stands for none.
func CheckFiles(w io.Writer, components, services string, need Part) error {
	problems := checkComponents(components, need)
	if services != "" {
		problems = textpb.Join(problems, checkServices(services))
	}
	for _, p := range problems {
		if _, err := fmt.Fprintln(w, p.Error()); err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
	}
	if problems.Err() != nil {
		return fmt.Errorf("the configuration has %d problem(s)", len(problems)-len(problems.Warnings()))
	}
	_, err := fmt.Fprintf(w, "the configuration is valid, with %d warning(s)\n", len(problems))
	return err
}

func checkComponents(path string, need Part) textpb.Problems {
	f, err := Load(path)
	if err != nil {
		return asProblems(path, err)
	}
	return f.Check(need)
}

func checkServices(path string) textpb.Problems {
	s, err := LoadServices(path)
	if err != nil {
		return asProblems(path, err)
	}
	return s.Warnings
}

func asProblems(path string, err error) textpb.Problems {
	switch e := err.(type) {
	case textpb.Problems:
		return e
	case textpb.Problem:
		return textpb.Problems{e}
	}
	return textpb.Problems{{File: path, Message: err.Error()}}
}
