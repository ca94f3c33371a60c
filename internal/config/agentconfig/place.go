package agentconfig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/farspeak/farspeak/internal/config/textpb"
	"github.com/farspeak/farspeak/internal/winreg"
)

// CommunicatorValue is the value of the registry key that has the path of what is CommunicatorFile in a directory.
const CommunicatorValue = "communicator"

// place is where the configuration beside the main file is found.
type place interface {
	// communicator returns the path of the file; empty: there is none.
	communicator() (string, error)
	// services returns the paths of all files of one kind, SignedServices or TextServices, in the order of their names.
	// What could not be found is among the problems.
	services(kind string) (paths []string, problems []error)
}

// place of the configuration.
func (c *Config) place() place {
	if c.RegistryKey != "" {
		return inRegistry{c.Registry, c.RegistryKey}
	}
	return directory(c.Directory)
}

// directory has the files in it and in two directories below.
type directory string

func (d directory) communicator() (string, error) {
	path := filepath.Join(string(d), CommunicatorFile)
	if isMissing(path) {
		return "", nil
	}
	return path, nil
}

func (d directory) services(kind string) (paths []string, problems []error) {
	path := filepath.Join(string(d), kind)
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, []error{textpb.Problem{File: path, Message: "no services are read from here: the directory cannot be listed",
			Remedy: "create it when there are services to run"}}
	}
	for _, e := range entries {
		paths = append(paths, filepath.Join(path, e.Name()))
	}
	return paths, nil
}

func isMissing(path string) bool {
	_, err := os.Stat(path)
	return os.IsNotExist(err)
}

// inRegistry is a key of the registry: a value with the path of the communicator file, and a key for each kind of service
// below, each value of which has the path of a file.
type inRegistry struct {
	registry winreg.Registry
	key      string
}

func (p inRegistry) communicator() (string, error) {
	key, err := p.registry.View(p.key)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", unreadable(p.key, err)
	}
	defer key.Close()
	path, err := key.Text(CommunicatorValue)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", unreadable(winreg.Join(p.key, CommunicatorValue), err)
	}
	return path, nil
}

func (p inRegistry) services(kind string) (paths []string, problems []error) {
	name := winreg.Join(p.key, kind)
	key, err := p.registry.View(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, []error{unreadable(name, err)}
	}
	defer key.Close()
	values, err := key.Names()
	if err != nil {
		return nil, []error{unreadable(name, err)}
	}
	for _, v := range values {
		path, err := key.Text(v)
		if err != nil {
			problems = append(problems, unreadable(winreg.Join(name, v), err))
			continue
		}
		paths = append(paths, path)
	}
	return paths, problems
}

// unreadable is about a key or value.
func unreadable(name string, err error) textpb.Problem {
	if errors.Is(err, winreg.ErrKind) {
		return textpb.Problem{File: name, Message: "the value is not a string", Remedy: "write the path of a file there"}
	}
	return textpb.Problem{File: name, Message: fmt.Sprintf("cannot be read: %v", err), Remedy: "let the user that the agent runs as read it"}
}

// PrepareRegistry makes the keys of services where they are missing, so that whoever installs a service finds them. Without
// a registry there is nothing to do.
func (c *Config) PrepareRegistry() error {
	if c.RegistryKey == "" {
		return nil
	}
	for _, kind := range []string{SignedServices, TextServices} {
		key, err := c.Registry.Create(winreg.Join(c.RegistryKey, kind))
		if err == nil {
			err = key.Close()
		}
		if err != nil {
			return fmt.Errorf("registry_handler.configuration_key %s: %w; let the user that the agent runs as write there", c.RegistryKey, err)
		}
	}
	return nil
}
