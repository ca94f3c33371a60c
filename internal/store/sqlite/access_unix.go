//go:build unix

package sqlite

import "golang.org/x/sys/unix"

// checkWritable asks the system, which knows of permissions and of file systems that are mounted read-only. It does not
// open the file.
func checkWritable(path string) error { return unix.Access(path, unix.W_OK) }
