package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/farspeak/farspeak/internal/agent/disk"
	"github.com/farspeak/farspeak/internal/config/agentconfig"
	"github.com/farspeak/farspeak/internal/winreg"
)

// shelfOf chooses where the signed services of a configuration are. With a registry, which only has paths, deployed files
// go into a directory beside the main file, where no unprivileged user should be able to write.
func shelfOf(o *options, file *agentconfig.Config) shelf {
	if file.RegistryKey == "" {
		return folder(filepath.Join(file.Directory, agentconfig.SignedServices))
	}
	beside, err := filepath.Abs(filepath.Dir(o.config))
	if err != nil { // there is no working directory; the path as given is as good then
		beside = filepath.Dir(o.config)
	}
	return &registryShelf{
		registry: file.Registry,
		key:      winreg.Join(file.RegistryKey, agentconfig.SignedServices),
		folder:   folder(filepath.Join(beside, agentconfig.SignedServices)),
	}
}

// folder is a directory all of whose files are services.
type folder string

func (f folder) paths() ([]string, error) {
	entries, err := os.ReadDir(string(f))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var paths []string
	for _, e := range entries {
		paths = append(paths, filepath.Join(string(f), e.Name()))
	}
	return paths, err
}

func (f folder) put(name string, data []byte) (string, error) {
	if err := os.Mkdir(string(f), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	path := filepath.Join(string(f), name)
	return path, disk.Replace(path, data)
}

func (f folder) drop(path string) error {
	return errors.Join(os.Remove(path), disk.SyncDir(string(f)))
}

// registryShelf is a registry key whose values have the paths of services.
type registryShelf struct {
	registry winreg.Registry
	key      string
	folder   folder // for the files that are put
}

func (s *registryShelf) paths() ([]string, error) {
	var paths []string
	err := s.each(func(_ winreg.Key, _, path string) error {
		paths = append(paths, path)
		return nil
	})
	return paths, err
}

func (s *registryShelf) put(name string, data []byte) (string, error) {
	path, err := s.folder.put(name, data)
	if err != nil {
		return "", err
	}
	key, err := s.registry.Create(s.key)
	if err != nil {
		return "", err
	}
	return path, errors.Join(key.SetText(name, path), key.Close())
}

// drop forgets a path. A file that was put goes with it; others belong to whoever installed them.
func (s *registryShelf) drop(path string) error {
	err := s.each(func(key winreg.Key, name, other string) error {
		if other != path {
			return nil
		}
		return key.Delete(name)
	})
	if err == nil && filepath.Dir(path) == string(s.folder) {
		err = s.folder.drop(path)
	}
	return err
}

// each calls visit for all values that are paths, until one call fails.
func (s *registryShelf) each(visit func(key winreg.Key, name, path string) error) (err error) {
	key, err := s.registry.Create(s.key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, key.Close()) }()
	names, err := key.Names()
	for _, name := range names {
		path, unreadable := key.Text(name)
		if unreadable != nil {
			continue // nothing that a start would find
		}
		if err := visit(key, name, path); err != nil {
			return err
		}
	}
	return err
}
