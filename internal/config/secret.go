package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/farspeak/farspeak/internal/config/textpb"
)

// maxSecretBytes bounds files that hold one secret.
const maxSecretBytes = 64 << 10

// Secret is a value that must not be printed: its text form is a placeholder in every format verb.
type Secret struct{ value string }

// NewSecret returns a secret of that value.
func NewSecret(value string) Secret { return Secret{value} }

// Reveal returns the value itself.
func (s Secret) Reveal() string { return s.value }

// IsZero says whether there is no secret.
func (s Secret) IsZero() bool { return s.value == "" }

// Format writes a placeholder.
func (s Secret) Format(f fmt.State, _ rune) {
	text := "[secret]"
	if s.IsZero() {
		text = "[no secret]"
	}
	_, _ = io.WriteString(f, text)
}

// MarshalText returns the placeholder, for encoders that do not ask Format.
func (s Secret) MarshalText() ([]byte, error) { return fmt.Append(nil, s), nil }

// secretFile reads a file that holds one secret; space around it does not count. An empty path is no secret.
func secretFile(r *textpb.Report, field, path string) Secret {
	b := namedFile(r, field, path, maxSecretBytes)
	if b == nil {
		return Secret{}
	}
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		r.Error(field, fmt.Sprintf("%s is empty", path), "write the secret into that file")
	}
	warnIfOpen(r, field, path)
	return Secret{string(b)}
}

// namedFile reads a file that the configuration names, nil when there is no name or the file cannot be had.
func namedFile(r *textpb.Report, field, path string, limit int64) []byte {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		unreadable(r, field, path, err)
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		unreadable(r, field, path, err)
		return nil
	case int64(len(b)) > limit:
		r.Error(field, fmt.Sprintf("%s is larger than %d bytes", path, limit), "check that this is the right file")
		return nil
	}
	return append([]byte{}, b...) // never nil, even when empty
}

func unreadable(r *textpb.Report, field, path string, err error) {
	why, remedy := err.Error(), "check the path"
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		why = pe.Err.Error()
	}
	if errors.Is(err, fs.ErrPermission) {
		remedy = "let the user that the daemon runs as read it"
	}
	r.Error(field, fmt.Sprintf("cannot read %s: %s", path, why), remedy)
}

// warnIfOpen warns when others than owner and group may read the file, or others than the owner write it.
func warnIfOpen(r *textpb.Report, field, path string) {
	st, err := os.Stat(path)
	if err == nil && isOpen(st.Mode()) {
		r.Warn(field, fmt.Sprintf("%s has mode %04o and holds a secret", path, st.Mode().Perm()), "chmod 0640 it")
	}
}

func isOpen(mode fs.FileMode) bool { return mode.IsRegular() && mode.Perm()&0o027 != 0 }
