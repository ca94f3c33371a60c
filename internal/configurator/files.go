package configurator

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
)

// fileMode is the mode of a new file; the umask takes its part. Files that exist keep theirs.
type fileMode = fs.FileMode

const (
	keyMode    fileMode = 0o600 // private keys, and files with one inside
	publicMode fileMode = 0o644
)

// writePair writes a key and then its certificate. kind is what the two fields' names have in common.
func (g *generator) writePair(kind, certPath, keyPath string, cert *x509.Certificate, key *ecdsa.PrivateKey) error {
	text, err := encodeKey(key)
	if err != nil {
		return err
	}
	if err := g.write(kind+"_key_file", keyPath, text, keyMode); err != nil {
		return err
	}
	return g.write(kind+"_file", certPath, encodeCertificate(cert), publicMode)
}

// write makes or replaces the file that a field of the input names.
func (g *generator) write(field, path string, content []byte, mode fileMode) error {
	if err := writeFile(path, content, mode); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w; make the directory %s first", err, filepath.Dir(path))
		}
		return fmt.Errorf("%s: %w", field, err)
	}
	g.report.Written = append(g.report.Written, path)
	return nil
}

// writeFile replaces a file in one step. An existing file keeps mode and owner, and a symbolic link stays one. Where a
// file cannot be replaced but can be written (a mount of its own, a directory that is not ours, a device) it is.
func writeFile(path string, content []byte, mode fileMode) error {
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return replaceFile(path, content, mode, nil)
	}
	if err != nil {
		return err
	}
	old, err := os.Stat(target)
	if err != nil {
		return err
	}
	if old.Mode().IsRegular() {
		err = replaceFile(target, content, mode, old)
		if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.EROFS) {
			return err
		}
	}
	return os.WriteFile(target, content, mode)
}

// replaceFile puts a new file in the place of old, which is nil when there is none.
func replaceFile(path string, content []byte, mode fileMode, old fs.FileInfo) error {
	// Beside the target and not in a directory for temporary files: keys stay where their owner wants them.
	file, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)),
		renameio.WithPermissions(mode), renameio.WithExistingPermissions())
	if err != nil {
		return err
	}
	defer file.Cleanup()
	if old != nil {
		if err := keepOwner(file.File, old); err != nil {
			return err
		}
	}
	if _, err := file.Write(content); err != nil {
		return err
	}
	return file.CloseAtomicallyReplace()
}

// keepOwner gives file the owner of old.
func keepOwner(file *os.File, old fs.FileInfo) error {
	now, err := file.Stat()
	if err != nil {
		return err
	}
	was, is := old.Sys().(*syscall.Stat_t), now.Sys().(*syscall.Stat_t)
	if was.Uid == is.Uid && was.Gid == is.Gid {
		return nil
	}
	if err := file.Chown(int(was.Uid), int(was.Gid)); err != nil {
		return err
	}
	return file.Chmod(old.Mode().Perm()) // chown may have cleared bits
}
