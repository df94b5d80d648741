package server

import (
	"cmp"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Bounds of the code cache.
const (
	// maxCodeCache is how much disk it takes: some two hundred large Go modules, compiled.
	maxCodeCache = 2 << 30
	// maxCodeEntry bounds an entry before it is read: the code of the largest module.
	maxCodeEntry = 512 << 20
)

// sealer seals values; keyring.Sealer is one.
type sealer interface {
	Seal(dst, plaintext, aad []byte) ([]byte, error)
	OpenInPlace(sealed, aad []byte) ([]byte, error)
}

// codeCache keeps compiled code in files, each sealed under its key: what somebody has changed, or put
// in another one's place, does not open, and what does not open is not there. It implements
// cell.Cache.
type codeCache struct {
	dir    string
	sealer sealer
	most   int64 // bytes
	// spare returns how much disk there is that nothing more important may need.
	spare func() int64
	log   *slog.Logger

	mu sync.Mutex // one Put at a time
}

func newCodeCache(dir string, s sealer, most int64, spare func() int64, log *slog.Logger) (*codeCache, error) {
	return &codeCache{dir: dir, sealer: s, most: most, spare: spare, log: log}, os.MkdirAll(dir, 0o700)
}

// Get implements cell.Cache.
func (c *codeCache) Get(key string) []byte {
	path := filepath.Join(c.dir, key)
	info, err := os.Stat(path)
	if err != nil || info.Size() > maxCodeEntry {
		return nil
	}
	sealed, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	value, err := c.sealer.OpenInPlace(sealed, []byte(key))
	if err != nil {
		c.log.Warn("compiled code does not open and is made again", "file", path, "error", err)
		return nil
	}
	now := time.Now()
	if err := os.Chtimes(path, now, now); err != nil { // what is used is removed last
		c.log.Debug("mark compiled code as used", "file", path, "error", err)
	}
	return value
}

// Put implements cell.Cache. The file is not synced: after a power cut it does not open.
func (c *codeCache) Put(key string, value []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spare() < int64(len(value)) {
		return
	}
	err := c.write(key, value)
	if err == nil {
		err = c.trim()
	}
	if err != nil {
		c.log.Warn("compiled code not kept; it is made again after the next start", "error", err)
	}
}

func (c *codeCache) write(key string, value []byte) (err error) {
	sealed, err := c.sealer.Seal(nil, value, []byte(key))
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(c.dir, "new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	_, err = file.Write(sealed)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), filepath.Join(c.dir, key))
}

// trim removes what was not used for longest while all takes too much.
func (c *codeCache) trim() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var files []fs.FileInfo
	total := int64(0)
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		files = append(files, info)
		total += info.Size()
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return cmp.Compare(a.ModTime().UnixNano(), b.ModTime().UnixNano()) })
	for _, f := range files {
		if total <= c.most {
			break
		}
		if err := os.Remove(filepath.Join(c.dir, f.Name())); err != nil {
			return err
		}
		total -= f.Size()
	}
	return nil
}
