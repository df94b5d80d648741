package wall

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/cell/wall/confine"
)

const (
	// compilersAtOnce is how many modules are compiled at the same time: each uses every processor.
	compilersAtOnce = 2
	// Bounds of what a compiler process may hand over, in bytes: a Go module of 3 MB takes 18 MB compiled.
	compiledFactor = 16
	compiledRoom   = 64 << 20
	// maxEntries bounds the entries of one module: its code, and what all scripts begin with.
	maxEntries = 4
	maxKey     = 256
	// maxCompiled is the most there can be for the longest module.
	maxCompiled = compiledFactor*cell.MaxModuleBytes + compiledRoom
)

// compiler compiles modules, each in a process of its own that runs nothing of a user and ends afterwards, and keeps
// what comes of it in a cache. Whoever takes such a process over by what he has it compile can have the code of that very
// module changed, and no other: so what is in the cache can be given to any worker that is to run that module,
// at any time. What a worker that runs functions says of code is never kept.
type compiler struct {
	cache   cell.Cache
	program string
	start   func() (*process, error)
	log     *slog.Logger
	turns   chan struct{}
	// weaker says which wall is missing around a compiler process that is to be there.
	weaker func([]confine.Wall) error

	mu     sync.Mutex
	making map[string]*making
}

// making is one compilation that is going on; err is read after done is closed.
type making struct {
	done    chan struct{}
	entries []entry
	err     error
}

// entry is what an engine puts into its cache.
type entry struct {
	key   string
	value []byte
}

func newCompiler(cache cell.Cache, start func() (*process, error), log *slog.Logger) *compiler {
	return &compiler{
		weaker: func([]confine.Wall) error { return nil },
		cache:  cache, program: cell.ProgramID(), start: start, log: log.With("worker", "compiler"),
		turns: make(chan struct{}, compilersAtOnce), making: map[string]*making{},
	}
}

// nameOf names the compiled form of a module by this program. All scripts have the same.
func (c *compiler) nameOf(spec cell.Spec) string {
	h := sha256.New()
	if spec.Kind == api.ModuleScript {
		fmt.Fprintf(h, "scripts %s", c.program)
	} else {
		fmt.Fprintf(h, "module %s %x", c.program, spec.Digest)
	}
	return "compiled-" + hex.EncodeToString(h.Sum(nil))
}

// entries returns the compiled form of a function's module, from the cache or by having it compiled. There are none
// when no process can be started: then a worker compiles it. An error is a refusal, or a *lostError.
func (c *compiler) entries(ctx context.Context, f *Function) ([]entry, error) {
	name := c.nameOf(f.spec)
	c.mu.Lock()
	m := c.making[name]
	mine := m == nil
	if mine {
		m = &making{done: make(chan struct{})}
		c.making[name] = m
	}
	c.mu.Unlock()
	if mine {
		m.entries, m.err = c.findOrMake(ctx, name, f)
		c.mu.Lock()
		delete(c.making, name)
		c.mu.Unlock()
		close(m.done)
		return m.entries, m.err
	}
	select {
	case <-m.done:
	case <-ctx.Done():
		return nil, canceled(ctx)
	}
	if isCanceled(m.err) && ctx.Err() == nil {
		return c.entries(ctx, f) // whoever had it made went away
	}
	return m.entries, m.err
}

func (c *compiler) findOrMake(ctx context.Context, name string, f *Function) ([]entry, error) {
	if kept := c.cache.Get(name); kept != nil {
		d := decoder{left: kept}
		if entries := d.entries(); d.done() == nil {
			return entries, nil
		}
	}
	select {
	case c.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, canceled(ctx)
	}
	defer func() { <-c.turns }()
	spec, err := f.whole(ctx)
	if err != nil {
		return nil, err
	}
	p, err := c.start()
	if err != nil {
		c.log.WarnContext(ctx, "start a compiler process; the worker compiles the module itself", "error", err)
		return nil, nil
	}
	answer, err := c.make(ctx, p, spec)
	if err != nil {
		return nil, err
	}
	if answer == nil {
		return nil, nil
	}
	d := decoder{left: answer}
	entries := d.entries()
	if err := d.done(); err != nil {
		return nil, &lostError{err}
	}
	c.cache.Put(name, answer)
	return entries, nil
}

// make has p compile one module and end, and returns what it says, nil when it cannot hand code over.
func (c *compiler) make(ctx context.Context, p *process, spec cell.Spec) (answer []byte, err error) {
	stop := context.AfterFunc(ctx, p.kill)
	patience := time.AfterFunc(loadGrace, p.kill)
	defer func() {
		patience.Stop()
		stop()
		p.kill()
		<-p.exited
		p.talk.Wait()
		closeAll(append(p.lanes, p.conn))
		switch _, lost := errors.AsType[*lostError](err); {
		case ctx.Err() != nil:
			err = canceled(ctx)
		case lost:
			c.log.ErrorContext(ctx, "a compiler process was lost", "module", spec.Name, "pid", p.pid, "how", p.how, "error", err)
		}
	}()
	from := newReader(p.conn, readBuffer)
	h, err := readHello(from)
	if err != nil {
		return nil, &lostError{err}
	}
	if err := c.weaker(append(h.Walls, apart(confine.Namespaces(), h.Namespaces))); err != nil {
		return nil, &lostError{err}
	}
	if !h.Code {
		return nil, nil
	}
	const question = 1
	if _, err := p.conn.Write(encodeCompile(nil, question, spec)); err != nil {
		return nil, &lostError{fmt.Errorf("write to the compiler: %w", err)}
	}
	f, err := from.next(func(k kind, id uint64) (int, error) { return mostCompiled(k, id == question, spec) })
	if err != nil {
		return nil, &lostError{err}
	}
	if f.kind == kindCompiled {
		return f.body, nil
	}
	failure, err := decodeRefused(f.body)
	if err != nil {
		return nil, &lostError{err}
	}
	return nil, failure
}

// mostCompiled says how long the answer of a compiler may be.
func mostCompiled(k kind, asked bool, spec cell.Spec) (int, error) {
	switch {
	case k == kindCompiled && asked && spec.Kind == api.ModuleScript:
		return compiledRoom, nil
	case k == kindCompiled && asked:
		return compiledFactor*len(spec.Code) + compiledRoom, nil
	case k == kindRefused && asked:
		return maxFailure, nil
	}
	return 0, broken("a frame of kind %d is no answer", k)
}

// handed is the Cache of a worker's engine: it has what the server handed over for a load, for as long as that
// lasts. What the engine puts into it is dropped, unless the process is a compiler.
type handed struct {
	mu      sync.Mutex
	entries map[string]*handedEntry
	made    []entry
	collect bool
	// missed is told what was compiled here although a compiler should have; it may be nil.
	missed func(key string)
}

type handedEntry struct {
	value []byte
	loads int
}

func newHanded() *handed { return &handed{entries: map[string]*handedEntry{}} }

// Get implements cell.Cache.
func (h *handed) Get(key string) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e := h.entries[key]; e != nil {
		return e.value
	}
	return nil
}

// Put implements cell.Cache.
func (h *handed) Put(key string, value []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.collect:
		h.made = append(h.made, entry{key, bytes.Clone(value)})
	case h.missed != nil && strings.HasPrefix(key, cell.CodeKeys):
		h.missed(key)
	}
}

// offer has entries until withdraw is called with them.
func (h *handed) offer(entries []entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range entries {
		have := h.entries[e.key]
		if have == nil {
			have = &handedEntry{value: e.value}
			h.entries[e.key] = have
		}
		have.loads++
	}
}

func (h *handed) withdraw(entries []entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range entries {
		if have := h.entries[e.key]; have != nil {
			if have.loads--; have.loads == 0 {
				delete(h.entries, e.key)
			}
		}
	}
}

// compile is what a compiler process does: it compiles a module, and hands over what came of it.
func (w *worker) compile(ctx context.Context, id uint64, spec cell.Spec) {
	w.codes.mu.Lock()
	w.codes.collect = true
	w.codes.mu.Unlock()
	err := w.engine.Compile(ctx, spec)
	w.codes.mu.Lock()
	made := w.codes.made
	w.codes.made, w.codes.collect = nil, false
	w.codes.mu.Unlock()
	if err != nil {
		w.send(func(b []byte) []byte { return encodeRefused(b, id, err) })
		return
	}
	// When that fails the server is gone, which the reader finds out as well.
	_ = w.out.sendAfter(entryPieces(kindCompiled, id, made), func(b []byte) []byte { return b })
}
