package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"sallyport/internal/problem"
)

// readBounded reads a file that the user names, at most limit bytes of it.
func readBounded(file string, limit int64) ([]byte, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, problem.New(problem.NotFound, "cli.no_file", "there is no file %s", file)
	}
	if err != nil {
		return nil, err
	}
	text, err := readAll(f, file, limit)
	return text, errors.Join(err, f.Close())
}

// readAll reads r to its end, which must come within limit bytes.
func readAll(r io.Reader, name string, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(text)) > limit {
		return nil, problem.New(problem.TooLarge, "cli.too_large", "%s is larger than %s", name, size(limit))
	}
	return text, nil
}

// newTokenFile makes the file that a token is written to, readable by its owner alone. One that is there may hold a token that is in use.
func newTokenFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, problem.New(problem.Conflict, "cli.file_exists", "there is a file %s already", path).WithHint("name another with --out, or remove that one")
	}
	if err != nil {
		return nil, fmt.Errorf("make the token's file: %w", err)
	}
	return f, nil
}

// writePrivate writes a file that its owner alone can read, all of it or nothing.
func writePrivate(path string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // created 0600
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
