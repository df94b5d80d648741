package wall_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/cell/wall"
	"sallyport/internal/problem"
)

// kept is a cell.Cache in memory.
type kept struct {
	mu      sync.Mutex
	entries map[string][]byte
	hits    int
}

func (k *kept) Get(key string) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.entries[key] != nil {
		k.hits++
	}
	return k.entries[key]
}

func (k *kept) Put(key string, value []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.entries[key] = bytes.Clone(value)
}

func (k *kept) size() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.entries)
}

// keeping returns an engine that keeps compiled code in cache, and how many processes it has started.
func keeping(t *testing.T, cache cell.Cache, play func(n int, f wall.Fake)) (*wall.Engine, *atomic.Int64) {
	t.Helper()
	var started atomic.Int64
	cfg := wall.Config{Logger: slog.New(slog.DiscardHandler), Lanes: 1, Grace: patience, Cache: cache}
	e, err := wall.NewKeeping(t.Context(), cfg, func(n int, f wall.Fake) {
		started.Add(1)
		play(n, f)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e, &started
}

// keeper plays a worker that can be handed code.
func keeper(t *testing.T) func(int, wall.Fake) {
	t.Helper()
	scratch := t.TempDir()
	return func(n int, f wall.Fake) {
		if f.GreetKeeping() == nil {
			_ = f.ServeKeeping(context.Background(), filepath.Join(scratch, fmt.Sprint(n))) // its end is the server's doing
		}
	}
}

// answering is a WASI command that replies 1, and has a section of its own so that modules differ.
func answering(id byte) cell.Spec {
	return cell.Spec{Name: "one.wasm", Kind: api.ModuleWasm, Code: append([]byte("\x00asm\x01\x00\x00\x00"+
		"\x01\x0c\x02\x60\x04\x7f\x7f\x7f\x7f\x01\x7f\x60\x00\x00"+ // (i32 i32 i32 i32) -> i32, () -> ()
		"\x02\x23\x01\x16wasi_snapshot_preview1\x08fd_write\x00\x00"+
		"\x03\x02\x01\x01\x05\x03\x01\x00\x01"+ // one function, one page
		"\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x01"+
		"\x0a\x0f\x01\x0d\x00\x41\x01\x41\x00\x41\x01\x41\x20\x10\x00\x1a\x0b"+ // fd_write(1, 0, 1, 32)
		"\x0b\x19\x01\x00\x41\x00\x0b\x13\x08\x00\x00\x00\x0b\x00\x00\x00{\"reply\":1}"+ // {8, 11}, and the text
		"\x00\x03\x01m"), id)}
}

// TestCompilersFillTheCache: each module is compiled once, in a process of its own, by whatever worker and run it is
// loaded, and scripts have one between them.
func TestCompilersFillTheCache(t *testing.T) {
	t.Parallel()
	cache := &kept{entries: map[string][]byte{}}
	run := func(t *testing.T, want int64) {
		t.Helper()
		e, started := keeping(t, cache, keeper(t))
		for range 2 {
			for _, spec := range []cell.Spec{answering(1), script(`export default () => 1`), answering(2), script(`export default () => 1.0`), answering(1)} {
				f := load(t, e, spec, cell.DefaultLimits())
				r, _, err := f.Invoke(t.Context(), event("1"))
				if err != nil || string(r.Reply) != "1" {
					t.Errorf("%s: Invoke = %s, %v; want 1", spec.Name, r.Reply, err)
				}
				if err := f.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
		if got := started.Load(); got != want {
			t.Errorf("%d processes were started, want %d", got, want)
		}
	}
	run(t, 1+3) // a worker, and compilers for two modules and for scripts
	if got := cache.size(); got != 3 {
		t.Errorf("the cache has %d entries, want 3", got)
	}
	run(t, 1)
	for key := range cache.entries {
		cache.entries[key] = []byte("nothing that a compiler says")
	}
	run(t, 1+3)
}

// TestReadLater: a module that is kept reaches a worker without its code, which is read when a compiler needs it, or a
// worker that cannot use what it was handed.
func TestReadLater(t *testing.T) {
	t.Parallel()
	cache := &kept{entries: map[string][]byte{}}
	spec := answering(3)
	code := spec.Code
	var reads atomic.Int64
	spec.Code, spec.Digest = nil, sha256.Sum256(code)
	spec.Read = func(context.Context) ([]byte, error) {
		reads.Add(1)
		return code, nil
	}
	run := func(t *testing.T, spec cell.Spec, want int64) {
		t.Helper()
		e, _ := keeping(t, cache, keeper(t))
		f := load(t, e, spec, cell.DefaultLimits())
		if r, _, err := f.Invoke(t.Context(), event("1")); err != nil || string(r.Reply) != "1" {
			t.Errorf("Invoke = %s, %v; want 1", r.Reply, err)
		}
		if got := reads.Swap(0); got != want {
			t.Errorf("the code was read %d times, want %d", got, want)
		}
	}
	run(t, spec, 1)
	run(t, spec, 0)
	for key, value := range cache.entries {
		cache.entries[key] = wall.EntriesBody("code-of-another", value) // well formed, and of no use to a worker
	}
	run(t, spec, 1)
	cache.entries = map[string][]byte{}
	spec.Code = code
	run(t, spec, 0)
	unread := errors.New("the disk is gone")
	spec.Code, spec.Read = nil, func(context.Context) ([]byte, error) { return nil, unread }
	e, _ := keeping(t, &kept{entries: map[string][]byte{}}, keeper(t))
	if _, err := e.Load(t.Context(), spec, cell.DefaultLimits()); !errors.Is(err, unread) {
		t.Errorf("Load = %v, want %v", err, unread)
	}
}

// TestConcurrentLoads: who comes while a module is compiled waits for it, and has it.
func TestConcurrentLoads(t *testing.T) {
	t.Parallel()
	e, started := keeping(t, &kept{entries: map[string][]byte{}}, keeper(t))
	var all sync.WaitGroup
	for n := range 12 {
		all.Go(func() {
			spec := answering(7)
			if n%2 == 0 {
				spec = script(`export default () => 1`)
			}
			f, err := e.Load(t.Context(), spec, cell.DefaultLimits())
			if err != nil {
				t.Errorf("Load = %v", err)
				return
			}
			if r, _, err := f.Invoke(t.Context(), event("1")); err != nil || string(r.Reply) != "1" {
				t.Errorf("Invoke = %s, %v; want 1", r.Reply, err)
			}
		})
	}
	all.Wait()
	if got := started.Load(); got != 3 {
		t.Errorf("%d processes were started, want a worker and two compilers", got)
	}
}

// TestHostileCompiler: a compiler that breaks the protocol costs its own module's load, and nothing it said is
// kept. A worker that runs functions has no say in what is kept at all.
func TestHostileCompiler(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(id uint64) []byte{
		"nothing, and it ends": func(uint64) []byte { return nil },
		"another id":           func(id uint64) []byte { return wall.Frame(wall.KindCompiled, id+1, wall.EntriesBody("k", nil)) },
		"no entries":           func(id uint64) []byte { return wall.Frame(wall.KindCompiled, id, []byte("\xff\xff")) },
		"too many entries":     func(id uint64) []byte { return wall.Frame(wall.KindCompiled, id, []byte("\x7f")) },
		"more than there is":   func(id uint64) []byte { return wall.Frame(wall.KindCompiled, id, []byte("\x01\x01k\x7f1")) },
		"an endless frame":     func(uint64) []byte { return []byte("\xff\xff\xff\xff\x46aaaaaaaa") },
		"an answer of a load":  func(id uint64) []byte { return wall.Frame(wall.KindLoaded, id, wall.LoadedBody("reactor")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cache := &kept{entries: map[string][]byte{}}
			e, _ := keeping(t, cache, func(n int, f wall.Fake) {
				if f.GreetKeeping() != nil {
					return
				}
				in := wall.NewReader(f.Conn)
				if _, id, _, err := in.Next(); err == nil {
					_, _ = f.Conn.Write(answer(id))
				}
			})
			if _, err := e.Load(t.Context(), answering(1), cell.DefaultLimits()); code(err) != "cell.worker_lost" {
				t.Errorf("Load = %v, want cell.worker_lost", err)
			}
			if n := cache.size(); n != 0 {
				t.Errorf("%d entries were kept, want none", n)
			}
		})
	}
}

// TestCompilerRefuses: what a compiler refuses is refused, and a module is not compiled a second time to hear so.
func TestCompilerRefuses(t *testing.T) {
	t.Parallel()
	cache := &kept{entries: map[string][]byte{}}
	e, started := keeping(t, cache, keeper(t))
	spec := answering(1)
	spec.Code = spec.Code[:len(spec.Code)-4]
	_, err := e.Load(t.Context(), spec, cell.DefaultLimits())
	if p := problem.From(err); p.Code != "cell.module_invalid" || p.Kind != problem.Unprocessable {
		t.Errorf("Load = %v, want cell.module_invalid", err)
	}
	if got := started.Load(); got != 2 || cache.size() != 0 {
		t.Errorf("%d processes were started and %d entries kept, want 2 and none", got, cache.size())
	}
}

// TestNoFolderForCode: where workers cannot be handed code, they compile for themselves, and nothing is kept.
func TestNoFolderForCode(t *testing.T) {
	t.Parallel()
	cache := &kept{entries: map[string][]byte{}}
	e, _ := keeping(t, cache, honest(t))
	f := load(t, e, answering(1), cell.DefaultLimits())
	if r, _, err := f.Invoke(t.Context(), event("1")); err != nil || string(r.Reply) != "1" {
		t.Errorf("Invoke = %s, %v; want 1", r.Reply, err)
	}
	if cache.size() != 0 {
		t.Errorf("%d entries were kept, want none", cache.size())
	}
}
