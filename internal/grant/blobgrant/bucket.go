package blobgrant

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sallyport/internal/grant/expiring"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

const (
	// objectCost is what an object takes of the quota beside its content, in bytes: a block of the disk.
	objectCost = 4 << 10
	// maxObjects bounds the objects of a bucket, whose names are in memory.
	maxObjects = 100_000
	// sweepEvery is how often objects whose time is over are removed, and sweepMost how many at a time: each costs a write.
	sweepEvery, sweepMost = time.Minute, 32
)

// bucket is the state of a bucket: an index of its objects in memory, loaded when it is first used. Their names are in the storage, and
// their content is in files, one each. A name is stored when its content is on disk, and content goes when no name is
// stored any more that refers to it: so what a crash leaves are files that nothing refers to, which load removes.
type bucket struct {
	kind    *Kind
	ns      ident.Namespace
	label   string // namespace/bucket
	dir     string
	storage Storage
	sealer  Sealer
	hide    func(string) string
	doors   int // guarded by Kind.mu

	turn chan struct{} // holds one token; who has it may change something

	mu       sync.RWMutex // guards what follows; not held while the disk is used
	loaded   bool
	gone     bool // the namespace was removed
	index    expiring.Index[*object]
	contents map[digest]*content // that new objects may refer to
	used     int64               // of the quota
	pending  int64               // of the quota, by uploads
	active   map[fileID]bool     // files of uploads
	latest   uint64              // version
	swept    time.Time
}

func newBucket(k *Kind, ns ident.Namespace, name string, at Place) *bucket {
	label := string(ns) + "/" + name // neither has a slash
	b := &bucket{
		kind: k, ns: ns, label: label, dir: filepath.Join(k.cfg.Dir, string(ns), name), storage: at.Names, sealer: at.Sealer, hide: at.Hide,
		turn: make(chan struct{}, 1), active: map[fileID]bool{},
	}
	b.turn <- struct{}{}
	return b
}

func (b *bucket) path(id fileID) string { return filepath.Join(b.dir, id.String()) }

func (b *bucket) place(id fileID) place { return place{b.label, id} }

// take waits for the turn to change something, and sees that the index is loaded.
func (b *bucket) take(ctx context.Context) error {
	select {
	case <-b.turn:
	case <-ctx.Done():
		return problem.New(problem.Timeout, "grant.timeout", "the bucket was busy for too long").WithRetryAfter(time.Second).WithCause(ctx.Err())
	}
	if err := b.load(ctx); err != nil {
		b.give()
		return err
	}
	return nil
}

func (b *bucket) give() { b.turn <- struct{}{} }

// state reports whether the index is loaded; a bucket whose namespace was removed is an error.
func (b *bucket) state() (loaded bool, err error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.gone {
		return false, problem.New(problem.Unavailable, "grant.closed", "the namespace of the bucket was removed")
	}
	return b.loaded, nil
}

// load reads the storage when that was not done yet, and removes files that nothing refers to. The turn is held.
func (b *bucket) load(ctx context.Context) error {
	if loaded, err := b.state(); loaded || err != nil {
		return err
	}
	parent := filepath.Dir(b.dir)
	if err := errors.Join(makeDir(b.kind.cfg.Dir, parent), makeDir(parent, b.dir)); err != nil {
		return fmt.Errorf("make the folder of bucket %s: %w", b.label, err)
	}
	stored, err := b.storage.List(ctx, "", "", 0)
	if err != nil {
		return err
	}
	index := make(map[string]*object, len(stored))
	contents, files := map[digest]*content{}, map[fileID]*content{}
	var used int64
	latest := b.latest
	for _, s := range stored {
		o, err := parseObject(s.Value)
		if err != nil || b.hide(o.name) != s.Key {
			return fmt.Errorf("read an object of bucket %s: %w", b.label, errors.Join(errObject, err))
		}
		if c := files[o.content.id]; c != nil {
			o.content = c
		}
		o.content.refs++
		files[o.content.id], contents[o.content.digest] = o.content, o.content
		latest, used = max(latest, o.version), used+o.cost()
		index[o.name] = o
	}
	if err := b.clean(files); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.index, b.contents, b.used, b.latest, b.loaded = expiring.New(index), contents, used, latest, true
	return nil
}

// clean removes the files that no object and no upload refers to.
func (b *bucket) clean(files map[fileID]*content) error {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return err
	}
	b.mu.RLock()
	var old []fileID
	for _, e := range entries {
		if id, ok := parseFileID(e.Name()); ok && files[id] == nil && !b.active[id] {
			old = append(old, id)
		}
	}
	b.mu.RUnlock()
	for _, id := range old {
		b.discard(id)
	}
	return nil
}

// discard removes the file of content that nothing refers to. What cannot be removed stays until the bucket is loaded again.
func (b *bucket) discard(id fileID) {
	stat, err := os.Stat(b.path(id))
	if err == nil {
		err = os.Remove(b.path(id))
	}
	switch {
	case err == nil:
		b.count(-stat.Size() - objectCost)
	case !errors.Is(err, fs.ErrNotExist):
		b.kind.cfg.Logger.Error("remove content that nothing refers to", "bucket", b.label, "file", id.String(), "error", err)
	}
}

// ready loads the index for a reader.
func (b *bucket) ready(ctx context.Context) error {
	if loaded, err := b.state(); loaded || err != nil {
		return err
	}
	if err := b.take(ctx); err != nil {
		return err
	}
	b.give()
	return nil
}

// find returns the object of a name, or nil.
func (b *bucket) find(ctx context.Context, name string) (*object, error) {
	if err := b.ready(ctx); err != nil {
		return nil, err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.present(name), nil
}

// present returns the object of a name unless its time is over, or nil. b.mu is held.
func (b *bucket) present(name string) *object {
	if o := b.index.Get(name); o != nil && !o.Over(b.kind.cfg.Now()) {
		return o
	}
	return nil
}

// read appends a part of an object. It reports false when the object was replaced meanwhile.
func (b *bucket) read(dst []byte, o *object, offset, length int64) ([]byte, bool, error) {
	c := o.content
	out, err := readRange(dst, b.path(c.id), b.sealer, b.place(c.id), c.size, offset, length)
	if err == nil {
		return out, true, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.index.Get(o.name) != o {
		return nil, false, nil
	}
	if !errors.Is(err, errDamaged) && !errors.Is(err, fs.ErrNotExist) {
		return nil, true, fmt.Errorf("read %s of bucket %s: %w", c.id, b.label, err)
	}
	if b.contents[c.digest] == c {
		delete(b.contents, c.digest) // so that the same content can be stored again
	}
	b.kind.cfg.Logger.Error("content of a bucket is damaged", "bucket", b.label, "file", c.id.String(), "error", err)
	return nil, true, problem.New(problem.Internal, "grant.blob_damaged", "the content of the object is damaged").
		WithHint("store it again, or restore the data directory from a backup, keys and blobs together").WithCause(err)
}

// reserve takes n bytes of the quota for an upload, after it has removed what may go if that is needed.
func (b *bucket) reserve(ctx context.Context, n, quota int64) error {
	for {
		b.mu.Lock()
		fits := b.used+b.pending+n <= quota
		if fits {
			b.pending += n
		}
		b.mu.Unlock()
		if fits {
			return nil
		}
		if err := b.take(ctx); err != nil {
			return err
		}
		removed, err := b.sweep(ctx, sweepMost)
		b.give()
		if err != nil {
			return err
		}
		if removed == 0 {
			return problem.New(problem.Exhausted, "grant.blob_full", "the bucket has reached its quota of %d bytes", quota).
				WithHint("delete objects, give them a ttl, or raise quota of the grant")
		}
	}
}

// unreserve gives back what an upload has taken.
func (b *bucket) unreserve(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pending -= n
}

// begin notes the file of an upload. One that could not be committed is not begun.
func (b *bucket) begin(ctx context.Context, id fileID, t *terms) error {
	if err := b.ready(ctx); err != nil {
		return err
	}
	if err := b.check(t.name, t.version); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.index.Len()+len(b.active) >= maxObjects {
		return problem.New(problem.Exhausted, "grant.blob_full", "the bucket has %d objects, which is as many as may be", b.index.Len()).
			WithHint("delete objects, give them a ttl, or use a second bucket")
	}
	b.active[id] = true
	return nil
}

// end forgets the file of an upload, and removes it unless something refers to it.
func (b *bucket) end(id fileID, reserved int64, keep bool) {
	if !keep {
		b.discard(id)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pending -= reserved
	delete(b.active, id)
}

// commit puts content that is on disk under a name, when version is nil or that of the object there (0: none). The file of id is kept
// exactly when kept is returned; it is not when the bucket had the content before, or nothing was changed. After an error the file
// may be referred to, which the next load tells.
func (b *bucket) commit(ctx context.Context, id fileID, o *object, version *uint64) (kept bool, err error) {
	if err := b.take(ctx); err != nil {
		return false, err
	}
	defer b.give()
	if now := b.kind.cfg.Now(); now.Sub(b.swept) >= sweepEvery {
		b.swept = now
		if _, err := b.sweep(ctx, sweepMost); err != nil {
			return false, err
		}
	}
	if err := b.check(o.name, version); err != nil {
		return false, err
	}
	b.mu.Lock()
	same := b.contents[o.content.digest]
	// The time makes versions grow across restarts, also when the newest object was deleted.
	b.latest = max(b.latest+1, uint64(b.kind.cfg.Now().UnixMicro()))
	o.version = b.latest
	b.mu.Unlock()
	kept = true
	if same != nil && b.whole(same) {
		o.content, kept = same, false
	}
	if kept {
		if err := syncDir(b.dir); err != nil {
			return false, err
		}
	}
	if err := b.storage.Put(ctx, b.hide(o.name), o.append(nil)); err != nil {
		b.forget(id)
		return true, err
	}
	b.mu.Lock()
	o.content.refs++
	b.contents[o.content.digest] = o.content
	old := b.drop(o.name)
	b.index.Put(o.name, o)
	b.used += o.cost()
	b.mu.Unlock()
	b.discardAll(old)
	return kept, nil
}

// whole reports whether the file of content has its length: what somebody has cut or removed is not shared.
func (b *bucket) whole(c *content) bool {
	stat, err := os.Stat(b.path(c.id))
	return err == nil && stat.Size() == sealedSize(c.size)
}

// check returns a problem unless version is nil or that of a name.
func (b *bucket) check(name string, version *uint64) error {
	if current := b.version(name); version != nil && *version != current {
		return changed("the object has another version, %d", current)
	}
	return nil
}

// version returns the version of a name, and 0 when it has no object.
func (b *bucket) version(name string) uint64 {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if o := b.present(name); o != nil {
		return o.version
	}
	return 0
}

// drop takes an object that goes, or is replaced, out of the sums, and returns the content that nothing refers to any more. b.mu is held.
func (b *bucket) drop(name string) *content {
	o := b.index.Get(name)
	if o == nil {
		return nil
	}
	b.used -= o.cost()
	if o.content.refs--; o.content.refs > 0 {
		return nil
	}
	if b.contents[o.content.digest] == o.content {
		delete(b.contents, o.content.digest)
	}
	return o.content
}

func (b *bucket) discardAll(list ...*content) {
	for _, c := range list {
		if c != nil {
			b.discard(c.id)
		}
	}
}

// forget has the index read again: after a failed write nobody knows what is stored, and so which of these files are referred to.
func (b *bucket) forget(unknown ...fileID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range unknown {
		delete(b.active, id)
	}
	b.index, b.contents, b.used, b.loaded = expiring.Index[*object]{}, nil, 0, false
}

// sweep removes objects whose time is over, at most that many. The turn is held.
func (b *bucket) sweep(ctx context.Context, most int) (int, error) {
	b.mu.RLock()
	old := b.index.Over(b.kind.cfg.Now(), most)
	b.mu.RUnlock()
	for _, name := range old {
		if err := b.remove(ctx, name); err != nil {
			return 0, err
		}
	}
	return len(old), nil
}

// remove deletes an object. The turn is held.
func (b *bucket) remove(ctx context.Context, name string) error {
	if err := b.storage.Delete(ctx, b.hide(name)); err != nil {
		b.forget()
		return err
	}
	b.mu.Lock()
	old := b.drop(name)
	b.index.Delete(name)
	b.mu.Unlock()
	b.discardAll(old)
	return nil
}

// delete removes an object, when version is nil or that of the present one. It reports whether there was one that it removed.
func (b *bucket) delete(ctx context.Context, name string, version *uint64) (bool, error) {
	if err := b.take(ctx); err != nil {
		return false, err
	}
	defer b.give()
	current := b.version(name)
	if version != nil && *version != current || current == 0 {
		return false, nil
	}
	return true, b.remove(ctx, name)
}

// list returns the objects whose names begin with prefix and come after a name, and whether there are more.
func (b *bucket) list(ctx context.Context, prefix, after string, limit int) ([]*object, bool, error) {
	if err := b.ready(ctx); err != nil {
		return nil, false, err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	out, more := b.index.List(prefix, after, limit, b.kind.cfg.Now())
	return out, more, nil
}

// count counts bytes on the disk, unless the namespace was removed with all of them.
func (b *bucket) count(n int64) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if !b.gone {
		b.kind.stored.add(b.ns, n)
	}
}

// close has everything refused from now on: the namespace was removed.
func (b *bucket) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone = true
}

func changed(format string, args ...any) *problem.Error {
	return problem.New(problem.Conflict, "grant.blob_changed", format, args...).WithHint("read it again, and decide anew")
}
