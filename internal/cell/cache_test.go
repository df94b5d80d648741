package cell_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/problem"
)

// memoryCache is a Cache that counts.
type memoryCache struct {
	mu         sync.Mutex
	entries    map[string][]byte
	hits, puts int
}

func (c *memoryCache) Get(key string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[key] != nil {
		c.hits++
	}
	return c.entries[key]
}

func (c *memoryCache) Put(key string, value []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = map[string][]byte{}
	}
	c.entries[key] = bytes.Clone(value)
	c.puts++
}

func newEngine(t testing.TB, cache cell.Cache) *cell.Engine {
	t.Helper()
	cfg := cell.Default()
	cfg.Cache, cfg.Scratch = cache, filepath.Join(t.TempDir(), "scratch")
	e, err := cell.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return e
}

// TestCache: a second engine takes what the first one made, runs it, and makes nothing again. Entries
// that are not what they were are as good as none, where the Cache does not see it.
func TestCache(t *testing.T) {
	t.Parallel()
	cache := &memoryCache{}
	module, script := wasm("echo.wasm", echo()), js(`export default () => 1`)
	run := func(t *testing.T, specs ...cell.Spec) {
		t.Helper()
		e := newEngine(t, cache)
		for _, spec := range specs {
			f, err := e.Load(t.Context(), spec, cell.DefaultLimits())
			if err != nil {
				t.Fatal(err)
			}
			result, _, err := f.Invoke(t.Context(), cell.Input{Event: []byte(`{"reply":1}`)})
			if err != nil || string(result.Reply) != "1" {
				t.Errorf("%s: reply = %s, %v; want 1", spec.Name, result.Reply, err)
			}
			if err := f.Close(t.Context()); err != nil {
				t.Errorf("Close = %v", err)
			}
		}
	}
	run(t, script, module, module)
	made := cache.puts
	if made == 0 {
		t.Fatal("nothing was kept")
	}
	run(t, script, module, module)
	if cache.puts != made || cache.hits < 2 {
		t.Errorf("the second engine made %d entries and found %d; want 0, and at least 2", cache.puts-made, cache.hits)
	}
	cache.entries = nil
	run(t, module)
	for key, entry := range cache.entries {
		outside := append([]byte("\x0d../../outside"), entry[1+entry[0]:]...)
		for _, bad := range [][]byte{{}, []byte("x"), outside, append(bytes.Clone(entry), 1), entry[:len(entry)/2], emptyCode(entry)} {
			cache.entries[key] = bad
			run(t, module)
		}
	}
}

// emptyCode returns an entry of compiled code with nothing for the code, which comes last.
func emptyCode(entry []byte) []byte {
	at := 0
	for range 5 {
		n, width := binary.Uvarint(entry[at:])
		if at += width + int(n); at >= len(entry) {
			return nil // a template
		}
	}
	return append(bytes.Clone(entry[:at]), 0)
}

// FuzzParseEntry: what is taken as an entry of compiled code is encoded as it was, and all else is an error.
func FuzzParseEntry(f *testing.F) {
	cache := &memoryCache{}
	fn, err := newEngine(f, cache).Load(f.Context(), wasm("echo.wasm", echo()), cell.DefaultLimits())
	if err != nil {
		f.Fatal(err)
	}
	if err := fn.Close(f.Context()); err != nil {
		f.Fatal(err)
	}
	for key, entry := range cache.entries {
		if strings.HasPrefix(key, "code-") {
			f.Add(entry)
		}
	}
	f.Add([]byte("\x01a\x02{}\x00\x01\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		again, err := cell.RecodeEntry(b)
		if err != nil {
			return
		}
		if twice, err := cell.RecodeEntry(again); err != nil || !bytes.Equal(twice, again) {
			t.Errorf("an entry changed: %v", err)
		}
	})
}

// BenchmarkLoadCached is what the first event after a restart waits for: a Go program of 3 MB whose
// compiled code is in the cache, against compiling it.
func BenchmarkLoadCached(b *testing.B) {
	spec := built(b, "reactor")
	for _, kind := range []string{"compiled", "cached"} {
		b.Run(kind, func(b *testing.B) {
			cache := &memoryCache{}
			e := newEngine(b, cache)
			b.SetBytes(int64(len(spec.Code)))
			if f, err := e.Load(b.Context(), spec, cell.DefaultLimits()); err != nil || f.Close(b.Context()) != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if kind == "compiled" {
					cache.entries = nil
				}
				f, err := e.Load(b.Context(), spec, cell.DefaultLimits())
				if err != nil {
					b.Fatal(err)
				}
				if err := f.Close(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// FuzzParseTemplate: what is taken as a template is encoded as it was, and all else is an error.
func FuzzParseTemplate(f *testing.F) {
	cache := &memoryCache{}
	e := newEngine(f, cache)
	fn, err := e.Load(f.Context(), wasm("echo.wasm", echo()), cell.DefaultLimits())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = fn.Close(context.Background()) })
	seeds := 0
	for key, entry := range cache.entries {
		if strings.HasPrefix(key, "template-") {
			f.Add(entry)
			seeds++
		}
	}
	if seeds == 0 {
		f.Fatal("no template was kept")
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if again, err := cell.ReencodeTemplate(b); err == nil && !bytes.Equal(again, b) {
			t.Errorf("%x is encoded as %x", b, again)
		}
	})
}

// TestReadLater: the code of a module is read once, when its compiled form is not kept; that it cannot be read is not
// the module's fault.
func TestReadLater(t *testing.T) {
	t.Parallel()
	cache := &memoryCache{}
	code := echo()
	reads := 0
	spec := cell.Spec{Name: "echo.wasm", Kind: api.ModuleWasm, Digest: sha256.Sum256(code), Read: func(context.Context) ([]byte, error) {
		reads++
		return code, nil
	}}
	for range 2 {
		f, err := newEngine(t, cache).Load(t.Context(), spec, cell.DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		result, _, err := f.Invoke(t.Context(), cell.Input{Event: []byte(`{"reply":1}`)})
		if err != nil || string(result.Reply) != "1" {
			t.Errorf("reply = %s, %v; want 1", result.Reply, err)
		}
		if reads != 1 {
			t.Errorf("the code was read %d times, want once", reads)
		}
		if err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	unread := errors.New("the disk is gone")
	spec.Read = func(context.Context) ([]byte, error) { return nil, unread }
	_, err := newEngine(t, &memoryCache{}).Load(t.Context(), spec, cell.DefaultLimits())
	if _, refused := errors.AsType[*problem.Error](err); refused || !errors.Is(err, unread) {
		t.Errorf("Load = %v, want %v and no refusal", err, unread)
	}
	spec.Read = func(context.Context) ([]byte, error) { return make([]byte, cell.MaxModuleBytes+1), nil }
	_, err = newEngine(t, &memoryCache{}).Load(t.Context(), spec, cell.DefaultLimits())
	if p := problem.From(err); p.Code != "cell.module_too_large" {
		t.Errorf("Load of too long a module = %v, want cell.module_too_large", err)
	}
}
