package keyring

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"sallyport/internal/problem"
)

// Root is the root key: whoever has it and the data directory can read everything.
type Root struct {
	redacted
	key  key
	path string
	// fresh says that there was no file; verify writes it.
	fresh bool
}

const (
	rootArmour = "sallyport-root-key-v1"
	rootNote   = "# The root key of a Sallyport server: without it, its data directory cannot be read. Keep a copy\n" +
		"# apart from the backups of the data directory, and let nobody else read it.\n"
	// rootCheckSize is how many bytes of the key's SHA-256 follow it, so that a typing error is told
	// from a wrong key.
	rootCheckSize = 4
	// maxRootFile bounds the root key file in bytes; it is about 300 long.
	maxRootFile = 4096
)

// OpenRoot reads the root key file at path. It refuses one that others than its owner can read
// (problem keyring.root_exposed). When there is none, it returns a new random key, which New writes
// to path with mode 0600, and only when no keys exist yet: a lost root key must not be replaced.
func OpenRoot(path string) (*Root, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Root{key: newKey(), path: path, fresh: true}, nil
	}
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer func() { _ = file.Close() }() // it was only read
	if err := checkAccess(path, file); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxRootFile+1))
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer clear(text)
	k, ok := parseRoot(text)
	if !ok {
		return nil, problem.New(problem.Invalid, "keyring.root_malformed", "the root key file %s is damaged or not a root key file", path).
			WithHint("restore it from your copy")
	}
	return &Root{key: k, path: path}, nil
}

// checkAccess refuses a file that anybody but its owner (this user, or root) can read or write.
func checkAccess(path string, file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return unreadable(path, err)
	}
	if !info.Mode().IsRegular() {
		return unreadable(path, errors.New("not a regular file"))
	}
	const others = 0o077
	if mode := info.Mode().Perm(); mode&others != 0 {
		return problem.New(problem.Denied, "keyring.root_exposed", "others can read the root key file %s: its mode is %04o", path, mode).
			WithHint("run: chmod 600 %s; if somebody may have read it, the key is no longer secret", path)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		return problem.New(problem.Denied, "keyring.root_exposed", "the root key file %s belongs to another user, with id %d", path, stat.Uid).
			WithHint("give it to the user the server runs as")
	}
	return nil
}

func unreadable(path string, cause error) error {
	return problem.New(problem.Unavailable, "keyring.root_unreadable", "the root key file %s cannot be read or written", path).
		WithHint("see the cause in the log; the file must be a regular file of the user the server runs as").
		WithCause(cause)
}

// formatRoot returns the text of a root key file.
func formatRoot(k key) []byte {
	sum := sha256.Sum256(k.secret[:])
	body := append(append([]byte(nil), k.secret[:]...), sum[:rootCheckSize]...)
	defer clear(body)
	text := []byte(rootNote + rootArmour + "\n")
	return append(base64.StdEncoding.AppendEncode(text, body), '\n')
}

// parseRoot reads the text of a root key file: lines with # are notes, then come the armour line and
// the key line, and nothing else.
func parseRoot(text []byte) (key, bool) {
	if len(text) > maxRootFile {
		return key{}, false
	}
	var lines [][]byte
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	if len(lines) != 2 || string(lines[0]) != rootArmour {
		return key{}, false
	}
	body, err := base64.StdEncoding.Strict().AppendDecode(nil, lines[1])
	defer clear(body)
	if err != nil || len(body) != keySize+rootCheckSize {
		return key{}, false
	}
	sum := sha256.Sum256(body[:keySize])
	if !bytes.Equal(sum[:rootCheckSize], body[keySize:]) {
		return key{}, false
	}
	return key{secret: [keySize]byte(body)}, true
}

// rootVersion begins the record that tells which root key a store belongs to; a commitment follows.
const rootVersion = 1

// verify makes sure that r is the root key of the keys in wrapped. When there are none, it becomes
// that: first its file is written, then the record, so that no crash leaves keys without a root.
func (r *Root) verify(ctx context.Context, wrapped Wrapped) error {
	commitment, err := r.key.derive("commitment")
	if err != nil {
		return fmt.Errorf("commit to the root key: %w", err)
	}
	want := append([]byte{rootVersion}, commitment...)
	got, err := wrapped.Get(ctx, rootName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("read which root key the store belongs to: %w", err)
	case r.fresh:
		return problem.New(problem.NotFound, "keyring.root_missing", "the root key file %s is missing, and the data directory is sealed with it", r.path).
			WithHint("restore the file from your copy; without it the data cannot be read")
	case subtle.ConstantTimeCompare(want, got) != 1:
		return problem.New(problem.Invalid, "keyring.root_wrong", "the root key file %s is not the one the data directory is sealed with", r.path).
			WithHint("restore the file that belongs to this data directory")
	default:
		return nil
	}
	if r.fresh {
		if err := r.write(); err != nil {
			return unreadable(r.path, err)
		}
		r.fresh = false
	}
	if err := wrapped.Put(ctx, rootName, want); err != nil {
		return fmt.Errorf("store which root key the store belongs to: %w", err)
	}
	return nil
}

// write puts the root key file in place, whole and on disk, and never over another one.
func (r *Root) write() (err error) {
	dir := filepath.Dir(r.path)
	file, err := os.CreateTemp(dir, ".root-key-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(file.Name())) }()
	text := formatRoot(r.key)
	defer clear(text)
	_, err = file.Write(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Link(file.Name(), r.path); err != nil {
		return err
	}
	parent, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}
