package cell

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-json-experiment/json"
	"github.com/klauspost/compress/s2"
	"github.com/tetratelabs/wazero"

	"sallyport/internal/cell/harden"
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

// CodeKeys is what the keys of compiled code begin with.
const CodeKeys = "code-"

// cacheKey returns the key of what is made of the given parts by this very program.
func (e *Engine) cacheKey(kind string, parts ...[]byte) string {
	h := sha256.New()
	for _, p := range append([][]byte{[]byte(e.program)}, parts...) {
		fmt.Fprintf(h, "%d:", len(p))
		h.Write(p)
	}
	return kind + "-" + hex.EncodeToString(h.Sum(nil))
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

// compiler compiles a module.
type compiler func(module []byte) (wazero.CompiledModule, error)

// compile returns the compiled form of a module: with the code that the cache has under the key, or else with what
// it makes of it, which it keeps. Either way what wazero reads is the module's skeleton, so that it does not hold
// the text of what it has the code of.
func (c *codeCache) compile(ctx context.Context, key string, src source, compile compiler) (compiled, error) {
	if kept := c.cache.Get(key); kept != nil {
		if out, err := c.reuse(kept, compile); err == nil {
			return out, nil
		}
		// What cannot be used is as good as nothing.
	}
	h, err := hardenSource(ctx, src)
	if err != nil {
		return compiled{}, err
	}
	made, err := c.make(ctx, h, compile)
	if err != nil {
		return compiled{}, err
	}
	if made == nil {
		return compileAll(h, compile)
	}
	c.cache.Put(key, made)
	return c.reuse(made, compile)
}

// make compiles a module and returns the entry for it, or nothing when wazero wrote no file: it had the code in memory.
func (c *codeCache) make(ctx context.Context, h hardened, compile compiler) ([]byte, error) {
	e := entry{report: h.report, data: h.data}
	var err error
	if e.skeleton, err = harden.Skeleton(h.code); err != nil {
		return nil, err
	}
	c.compiling.Lock()
	defer c.compiling.Unlock()
	_, code, err := c.write(ctx, h.code, compile)
	if err != nil || len(code) == 0 || len(code) > maxCode {
		return nil, err
	}
	e.packed, e.size = pack(code), int64(len(code))
	// wazero names the file of a module by the module, so it is asked for that of the skeleton.
	if e.path, _, err = c.write(ctx, e.skeleton, compile); err != nil || e.path == "" {
		return nil, err
	}
	return e.encode()
}

// write compiles a module and takes the file that wazero writes, if any.
func (c *codeCache) write(ctx context.Context, module []byte, compile compiler) (name string, code []byte, err error) {
	compiled, err := compile(module)
	if err != nil {
		return "", nil, err
	}
	name, code, err = c.collect()
	return name, code, errors.Join(err, compiled.Close(ctx))
}

// reuse returns the compiled form of a module of which there is an entry.
func (c *codeCache) reuse(kept []byte, compile compiler) (compiled, error) {
	e, err := parseEntry(kept)
	if err != nil {
		return compiled{}, err
	}
	done, err := c.restore(e)
	if err != nil {
		return compiled{}, err
	}
	defer done()
	data, err := harden.ParseData(bytes.Clone(e.data)) // nothing else of the entry is to stay
	if err != nil {
		return compiled{}, err
	}
	code, err := compile(e.skeleton)
	return compiled{code, e.report, data, e.size + int64(len(e.skeleton)+len(e.data))}, err
}

// entry is what is kept of a module.
type entry struct {
	report   harden.Report
	skeleton []byte
	// data is that of the module, which its skeleton does not have.
	data []byte
	// path is that of the file in the folder in which wazero looks for the code of the skeleton. packed is what
	// belongs into it, the code of the module, of size bytes: packed, it is a fourth of that.
	path   string
	size   int64
	packed []byte
}

// maxCode bounds the code of a module, unpacked, in bytes: that of the longest takes some 200 MiB.
const maxCode = 512 << 20

// packedBlock is what is packed and unpacked at once, in bytes: it stays in the caches of a processor, which a whole
// module does not.
const packedBlock = 512 << 10

// pack packs code: blocks in the block format of S2, each after its length.
func pack(code []byte) (out []byte) {
	for block := range slices.Chunk(code, packedBlock) {
		b := s2.Encode(nil, block)
		out = append(binary.AppendUvarint(out, uint64(len(b))), b...)
	}
	return out
}

// block is a packed block, and where what is in it belongs.
type block struct {
	packed   []byte
	at, size int64
}

// blocks returns the blocks of e, which are as long together as e says. It is safe with packed bytes from anywhere.
func (e *entry) blocks() (out []block, err error) {
	at := int64(0)
	for b := e.packed; len(b) > 0; {
		n, width := binary.Uvarint(b)
		if width <= 0 || n > uint64(len(b)-width) {
			return nil, errEntry
		}
		packed := b[width : width+int(n)]
		b = b[width+int(n):]
		size, err := s2.DecodedLen(packed)
		if err != nil || size > packedBlock || int64(size) > e.size-at {
			return nil, errEntry
		}
		out = append(out, block{packed, at, int64(size)})
		at += int64(size)
	}
	if at != e.size {
		return nil, errEntry
	}
	return out, nil
}

// unpack writes the code of e to w, on every processor there is: it is most of what a function waits for whose code is
// not in memory.
func (e *entry) unpack(w io.WriterAt) error {
	blocks, err := e.blocks()
	if err != nil {
		return err
	}
	var next atomic.Int64
	errs := make([]error, max(1, min(runtime.NumCPU(), len(blocks), maxUnpackers)))
	var wg sync.WaitGroup
	for i := range errs {
		unpack := func() { errs[i] = unpackBlocks(blocks, &next, w) }
		if i+1 < len(errs) {
			wg.Go(unpack)
		} else {
			unpack()
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// maxUnpackers bounds the goroutines that unpack a module: more only wait for memory.
const maxUnpackers = 4

// unpackBlocks unpacks blocks that nobody else has taken until there are none.
func unpackBlocks(blocks []block, next *atomic.Int64, w io.WriterAt) error {
	buffer := make([]byte, packedBlock)
	for {
		i := int(next.Add(1)) - 1
		if i >= len(blocks) {
			return nil
		}
		b := blocks[i]
		content, err := s2.Decode(buffer, b.packed)
		if err != nil {
			return fmt.Errorf("%w: %w", errEntry, err)
		}
		if int64(len(content)) != b.size {
			return errEntry
		}
		if _, err := w.WriteAt(content, b.at); err != nil {
			return err
		}
	}
}

// unpackTo writes the code of e to a file, or leaves none. A file that has its length before its content is given large
// pages by a file system in memory that has some.
func (e *entry) unpackTo(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = file.Truncate(e.size)
	if err == nil {
		err = e.unpack(file)
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// errEntry is returned for bytes that are no entry.
var errEntry = errors.New("not an entry of compiled code")

// encode returns the parts of e, each after its length.
func (e *entry) encode() ([]byte, error) {
	report, err := json.Marshal(&e.report)
	if err != nil {
		return nil, fmt.Errorf("encode the report of a module: %w", err)
	}
	parts := [][]byte{[]byte(e.path), binary.AppendVarint(nil, e.size), report, e.skeleton, e.data, e.packed}
	size := 0
	for _, p := range parts {
		size += len(p) + binary.MaxVarintLen64
	}
	out := make([]byte, 0, size)
	for _, p := range parts {
		out = append(binary.AppendUvarint(out, uint64(len(p))), p...)
	}
	return out, nil
}

// parseEntry parses what encode made, and keeps it. It is safe with bytes from anywhere, but the code is code.
func parseEntry(b []byte) (*entry, error) {
	var parts [6][]byte
	for i := range parts {
		n, width := binary.Uvarint(b)
		if width <= 0 || n > uint64(len(b)-width) {
			return nil, errEntry
		}
		parts[i], b = b[width:width+int(n)], b[width+int(n):]
	}
	e := &entry{path: string(parts[0]), skeleton: parts[3], data: parts[4], packed: parts[5]}
	var width int
	if e.size, width = binary.Varint(parts[1]); width != len(parts[1]) || e.size < 0 || e.size > maxCode || len(b) > 0 || !filepath.IsLocal(e.path) {
		return nil, errEntry
	}
	if err := json.Unmarshal(parts[2], &e.report, json.RejectUnknownMembers(true)); err != nil {
		return nil, errEntry
	}
	return e, nil
}

// restore writes the file of an entry.
func (c *codeCache) restore(e *entry) (done func(), err error) {
	path := filepath.Join(c.dir, e.path)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[path] == 0 {
		if err := e.unpackTo(path); err != nil {
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

// collect takes the one file out of the folder that nobody restored, if there is one.
func (c *codeCache) collect() (name string, content []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err = filepath.WalkDir(c.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || c.known[path] > 0 || strings.HasSuffix(path, ".tmp") {
			return err
		}
		if content, err = os.ReadFile(path); err != nil {
			return fmt.Errorf("collect compiled code: %w", err)
		}
		if name, err = filepath.Rel(c.dir, path); err != nil {
			return err
		}
		return os.Remove(path)
	})
	return name, content, err
}
