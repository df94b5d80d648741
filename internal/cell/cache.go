package cell

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/tetratelabs/wazero"
)

// Cache keeps compiled code and templates between the runs of a process. What it returns is executed:
// an implementation MUST return only what it was given under the same key, and nothing when it
// cannot be sure of that. Losing entries costs time only.
type Cache interface {
	// Get returns the value of a key, or nil.
	Get(key string) []byte
	// Put keeps a value. It does not keep the slice.
	Put(key string, value []byte)
}

// cacheVersion is a part of every key. It is raised when the form of an entry, the hardening or what
// a template holds changes in a way that the code does not tell.
const cacheVersion = "1"

// cacheKey returns the key of what is made of the given parts by this version of the engine.
func cacheKey(kind string, parts ...[]byte) string {
	h := sha256.New()
	for _, p := range append([][]byte{[]byte(cacheVersion), []byte(engineVersion())}, parts...) {
		fmt.Fprintf(h, "%d:", len(p))
		h.Write(p)
	}
	return kind + "-" + hex.EncodeToString(h.Sum(nil))
}

// engineVersion is the version of wazero, which checks its own again.
func engineVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path == "github.com/tetratelabs/wazero" {
			return m.Version
		}
	}
	return ""
}

// codeCache gets compiled code into wazero and out of it. wazero reads and writes files in a folder
// that it trusts, so the folder is a private one, and a file is in it only while the module it
// belongs to is compiled; between that, the code is in the Cache.
type codeCache struct {
	cache  Cache
	dir    string
	wazero wazero.CompilationCache

	compiling sync.Mutex // one module whose code is not known at a time: what appears is its

	mu    sync.Mutex
	known map[string]int // files that are in use, by how many
}

// openCodeCache empties and makes the folder.
func openCodeCache(cache Cache, dir string) (*codeCache, error) {
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return nil, fmt.Errorf("make a folder for compiled code: %w", err)
	}
	w, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the folder for compiled code: %w", err), os.RemoveAll(dir))
	}
	return &codeCache{cache: cache, dir: dir, wazero: w, known: map[string]int{}}, nil
}

func (c *codeCache) close(ctx context.Context) error {
	return errors.Join(c.wazero.Close(ctx), os.RemoveAll(c.dir))
}

// compile runs a compilation with the code that the cache has for the key, or keeps the code that it
// makes.
func (c *codeCache) compile(key string, compile func() error) error {
	if entry := c.cache.Get(key); entry != nil && c.reuse(entry, compile) {
		return nil
	}
	c.compiling.Lock()
	defer c.compiling.Unlock()
	if err := compile(); err != nil {
		return err
	}
	return c.collect(key)
}

// reuse runs a compilation with the code of an entry. It reports whether that went well: if not, the
// entry is as good as none.
func (c *codeCache) reuse(entry []byte, compile func() error) bool {
	done, err := c.restore(entry)
	if err != nil {
		return false
	}
	defer done()
	return compile() == nil
}

// An entry is the path of a file in the folder, a line feed, and its content.

// restore writes the file of an entry.
func (c *codeCache) restore(entry []byte) (done func(), err error) {
	name, content, ok := bytes.Cut(entry, []byte{'\n'})
	path := filepath.Join(c.dir, string(name))
	if !ok || !filepath.IsLocal(string(name)) {
		return nil, errors.New("the entry is malformed")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[path] == 0 {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return nil, fmt.Errorf("restore compiled code: %w", err)
		}
	}
	c.known[path]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.known[path]--; c.known[path] == 0 {
			delete(c.known, path)
			_ = os.Remove(path) // the folder is removed with the engine
		}
	}, nil
}

// collect takes the one file out of the folder that nobody restored. There is none when wazero had
// the code in memory.
func (c *codeCache) collect(key string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return filepath.WalkDir(c.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || c.known[path] > 0 || strings.HasSuffix(path, ".tmp") {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("collect compiled code: %w", err)
		}
		name, err := filepath.Rel(c.dir, path)
		if err != nil {
			return err
		}
		c.cache.Put(key, append([]byte(name+"\n"), content...))
		return os.Remove(path)
	})
}
