package kvgrant

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"sallyport/internal/grant/expiring"
	"sallyport/internal/ident"
	"sallyport/internal/keyring"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

const (
	// cacheBytes is how much of the values of a bucket is kept in memory.
	cacheBytes = 8 << 20
	// entryCost is what an entry costs of the quota beside its key and its value, in bytes.
	entryCost = 64
	// recordCost is more than what an entry takes on the disk beside its sealed value, in bytes: its subject in the store, with the names of the
	// namespace and the bucket and the digest of its key, and the head of the record.
	recordCost = 256
	// sweepEvery is how often values whose time is over are removed, and sweepMost how many at a time: each costs a write.
	sweepEvery, sweepMost = time.Minute, 32
)

// entry is a value. What is in the index is not changed, but for its value: nil when it is not in memory.
type entry struct {
	key     string
	value   []byte
	size    int // of the value
	binary  bool
	version uint64
	expires time.Time // zero is never
}

// cost is what the entry takes of the quota.
func (e *entry) cost() int64 { return int64(len(e.key) + e.size + entryCost) }

// onDisk is what the entry takes of the disk.
func (e *entry) onDisk() int64 {
	return int64(entryHead+len(e.key)+e.size) + keyring.Overhead + recordCost
}

// Over implements expiring.Entry.
func (e *entry) Over(now time.Time) bool { return !e.expires.IsZero() && !now.Before(e.expires) }

// describe appends the members that say what an entry is.
func (e *entry) describe(dst []byte) []byte {
	dst = strconv.AppendUint(append(dst, `"version":`...), e.version, 10)
	if !e.expires.IsZero() {
		dst = append(dst, `,"expires":"`...)
		dst = append(e.expires.UTC().AppendFormat(dst, time.RFC3339Nano), '"')
	}
	return dst
}

// bucket is the state of a bucket: an index of all its keys in memory, loaded when it is first used, and some of its values. The
// storage has everything. Changes wait for their turn, and are in the index once they are on disk.
type bucket struct {
	kind    *Kind
	ns      ident.Namespace
	name    string
	storage Storage
	hide    func(string) string
	now     func() time.Time
	doors   int // guarded by Kind.mu

	turn chan struct{} // holds one token; who has it may change something

	mu     sync.RWMutex // guards what follows; not held while the storage is used
	loaded bool
	index  expiring.Index[*entry]
	used   int64  // of the quota
	cached int64  // bytes of values in memory
	latest uint64 // version
	swept  time.Time
}

func newBucket(k *Kind, ns ident.Namespace, name string, storage Storage, hide func(string) string) *bucket {
	b := &bucket{kind: k, ns: ns, name: name, storage: storage, hide: hide, now: k.cfg.Now, turn: make(chan struct{}, 1)}
	b.turn <- struct{}{}
	return b
}

// wait waits for the turn to change something.
func (b *bucket) wait(ctx context.Context) error {
	select {
	case <-b.turn:
		return nil
	case <-ctx.Done():
		return problem.New(problem.Timeout, "grant.timeout", "the bucket was busy for too long").WithRetryAfter(time.Second).WithCause(ctx.Err())
	}
}

// measure counts what the bucket takes of the disk, unless load has.
func (b *bucket) measure(ctx context.Context) error {
	if err := b.wait(ctx); err != nil {
		return err
	}
	defer func() { b.turn <- struct{}{} }()
	if b.isLoaded() {
		return nil
	}
	keys, bytes, err := b.storage.Size(ctx)
	if err != nil {
		return err
	}
	b.kind.stored.Set(b.ns, b.name, bytes+int64(keys)*recordCost)
	return nil
}

// take waits for the turn to change something, and sees that the index is loaded.
func (b *bucket) take(ctx context.Context) error {
	if err := b.wait(ctx); err != nil {
		return err
	}
	if err := b.load(ctx); err != nil {
		b.turn <- struct{}{}
		return err
	}
	return nil
}

func (b *bucket) isLoaded() bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.loaded
}

// load reads the storage when that was not done yet. The turn is held.
func (b *bucket) load(ctx context.Context) error {
	if b.isLoaded() {
		return nil
	}
	stored, err := b.storage.List(ctx, "", "", 0)
	if err != nil {
		return err
	}
	index := make(map[string]*entry, len(stored))
	var used, cached, onDisk int64
	latest := b.latest
	for _, s := range stored {
		e, err := parseEntry(s.Value)
		if err != nil || b.hide(e.key) != s.Key {
			return fmt.Errorf("read an entry of a bucket: %w", errors.Join(errEntry, err))
		}
		latest, used, onDisk = max(latest, e.version), used+e.cost(), onDisk+e.onDisk()
		if cached += int64(e.size); cached > cacheBytes {
			cached -= int64(e.size)
			e.value = nil
		}
		index[e.key] = e
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.index, b.used, b.cached, b.latest, b.loaded = expiring.New(index), used, cached, latest, true
	b.kind.stored.Set(b.ns, b.name, onDisk)
	return nil
}

// ready loads the index for a reader.
func (b *bucket) ready(ctx context.Context) error {
	if b.isLoaded() {
		return nil
	}
	if err := b.take(ctx); err != nil {
		return err
	}
	b.turn <- struct{}{}
	return nil
}

// get returns the entry of a key with its value, or nil.
func (b *bucket) get(ctx context.Context, key string) (*entry, error) {
	for {
		if err := b.ready(ctx); err != nil {
			return nil, err
		}
		b.mu.RLock()
		e := b.index.Get(key)
		var copied entry
		if e != nil {
			copied = *e
		}
		b.mu.RUnlock()
		if e == nil || copied.Over(b.now()) {
			return nil, nil
		}
		if copied.value != nil {
			return &copied, nil
		}
		raw, err := b.storage.Get(ctx, b.hide(key))
		if errors.Is(err, store.ErrNotFound) && ctx.Err() == nil {
			continue // removed meanwhile, which the index says soon
		}
		if err != nil {
			return nil, err
		}
		read, err := parseEntry(raw)
		if err != nil || read.key != key {
			return nil, fmt.Errorf("read an entry of a bucket: %w", errors.Join(errEntry, err))
		}
		b.remember(e, read.value, read.version)
		return read, nil
	}
}

// remember keeps a value that was read in memory, in the place of others.
func (b *bucket) remember(e *entry, value []byte, version uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.index.Get(e.key) != e || e.version != version || e.value != nil {
		return
	}
	b.room(int64(len(value)))
	e.value = value
	b.cached += int64(len(value))
}

// room forgets values until there is memory for size more bytes. b.mu is held.
func (b *bucket) room(size int64) {
	for _, e := range b.index.All() { // in no order, so what is asked for often comes back
		if b.cached+size <= cacheBytes {
			return
		}
		if e.value != nil {
			b.cached -= int64(len(e.value))
			e.value = nil
		}
	}
}

// set replaces a value, when version is nil or that of the present one (0: none). It returns whether it did, and the version there is now.
func (b *bucket) set(ctx context.Context, e *entry, version *uint64, quota int64) (bool, uint64, error) {
	if err := b.take(ctx); err != nil {
		return false, 0, err
	}
	defer func() { b.turn <- struct{}{} }()
	if current := b.version(e.key); version != nil && *version != current {
		return false, current, nil
	}
	if err := b.put(ctx, e, quota); err != nil {
		return false, 0, err
	}
	return true, e.version, nil
}

// version returns the version of a key, and 0 when it has no value.
func (b *bucket) version(key string) uint64 {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if e := b.index.Get(key); e != nil && !e.Over(b.now()) {
		return e.version
	}
	return 0
}

// put stores an entry. The turn is held.
func (b *bucket) put(ctx context.Context, e *entry, quota int64) error {
	e.size = len(e.value)
	done, err := b.fits(ctx, e, quota)
	if err != nil {
		return err
	}
	defer done()
	b.mu.Lock()
	// The time makes versions grow across restarts, also when the newest value was deleted.
	b.latest = max(b.latest+1, uint64(b.now().UnixMicro()))
	e.version = b.latest
	b.mu.Unlock()
	if err := b.storage.Put(ctx, b.hide(e.key), e.append(nil)); err != nil {
		b.kind.stored.Add(b.ns, b.name, e.onDisk()) // it may be there; the next load says
		b.forget()
		return err
	}
	b.kind.stored.Add(b.ns, b.name, e.onDisk())
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(e.key)
	b.room(int64(e.size))
	b.index.Put(e.key, e)
	b.used, b.cached = b.used+e.cost(), b.cached+int64(e.size)
	return nil
}

// fits removes some values whose time is over, and has room for e taken: in the bucket, and in the namespace until done is called. The turn is held.
func (b *bucket) fits(ctx context.Context, e *entry, quota int64) (done func(), err error) {
	if now := b.now(); now.Sub(b.swept) >= sweepEvery {
		b.swept = now
		if _, err := b.sweep(ctx, sweepMost); err != nil {
			return nil, err
		}
	}
	for {
		done, full := b.admit(e, quota)
		if full == nil {
			return done, nil
		}
		if removed, err := b.sweep(ctx, sweepMost); err != nil || removed == 0 {
			return nil, errors.Join(err, full)
		}
	}
}

// admit takes room for e, or returns why there is none.
func (b *bucket) admit(e *entry, quota int64) (done func(), err error) {
	b.mu.RLock()
	used, more := b.used, e.onDisk()
	if old := b.index.Get(e.key); old != nil {
		used, more = used-old.cost(), more-old.onDisk()
	}
	b.mu.RUnlock()
	if used+e.cost() > quota {
		return nil, problem.New(problem.Exhausted, "grant.kv_full", "the bucket has reached its quota of %d bytes", quota).
			WithHint("delete keys, give values a ttl, or raise quota of the grant")
	}
	if more <= 0 {
		return func() {}, nil
	}
	return b.kind.cfg.Admit(b.ns, more)
}

// sweep removes values whose time is over, at most that many. The turn is held.
func (b *bucket) sweep(ctx context.Context, most int) (int, error) {
	b.mu.RLock()
	old := b.index.Over(b.now(), most)
	b.mu.RUnlock()
	for _, key := range old {
		if err := b.remove(ctx, key); err != nil {
			return 0, err
		}
	}
	return len(old), nil
}

// remove deletes a key. The turn is held.
func (b *bucket) remove(ctx context.Context, key string) error {
	if err := b.storage.Delete(ctx, b.hide(key)); err != nil {
		b.forget()
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(key)
	b.index.Delete(key)
	return nil
}

// drop takes an entry that goes, or is replaced, out of the sums. b.mu is held.
func (b *bucket) drop(key string) {
	e := b.index.Get(key)
	if e == nil {
		return
	}
	b.used, b.cached = b.used-e.cost(), b.cached-int64(len(e.value))
	b.kind.stored.Add(b.ns, b.name, -e.onDisk())
	e.value = nil // or room, which may still find it, would count it again
}

// forget has the index read again: after a failed write nobody knows what is stored.
func (b *bucket) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.index, b.loaded = expiring.Index[*entry]{}, false
}

// delete removes a key, when version is nil or that of the present value. It reports whether there was one that it removed.
func (b *bucket) delete(ctx context.Context, key string, version *uint64) (bool, error) {
	if err := b.take(ctx); err != nil {
		return false, err
	}
	defer func() { b.turn <- struct{}{} }()
	current := b.version(key)
	if version != nil && *version != current || current == 0 {
		return false, nil
	}
	return true, b.remove(ctx, key)
}

// increment adds to a value that is an integer, or to 0 when there is none; its time stays as it was when it has one.
func (b *bucket) increment(ctx context.Context, key string, by int64, expires time.Time, quota int64) (int64, uint64, error) {
	if err := b.take(ctx); err != nil {
		return 0, 0, err
	}
	defer func() { b.turn <- struct{}{} }()
	old, err := b.get(ctx, key)
	if err != nil {
		return 0, 0, err
	}
	value := int64(0)
	if old != nil {
		expires = old.expires
		if value, err = strconv.ParseInt(string(old.value), 10, 64); err != nil || old.binary {
			return 0, 0, problem.New(problem.Conflict, "grant.kv_not_a_number", "the value is not an integer, so nothing can be added to it")
		}
	}
	// Beyond 2^53 a JSON number is not exact in every language.
	const most = 1<<53 - 1
	if by > most || by < -most || value+by > most || value+by < -most {
		return 0, 0, problem.New(problem.Invalid, "grant.kv_request", "the sum is beyond what a JSON number holds")
	}
	value += by
	e := &entry{key: key, value: strconv.AppendInt(nil, value, 10), expires: expires}
	if err := b.put(ctx, e, quota); err != nil {
		return 0, 0, err
	}
	return value, e.version, nil
}

// list returns the entries, without values, whose keys begin with prefix and come after a key, and whether there are more.
func (b *bucket) list(ctx context.Context, prefix, after string, limit int) ([]entry, bool, error) {
	if err := b.ready(ctx); err != nil {
		return nil, false, err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	found, more := b.index.List(prefix, after, limit, b.now())
	out := make([]entry, len(found))
	for i, e := range found {
		out[i] = *e
		out[i].value = nil
	}
	return out, more, nil
}

var errEntry = errors.New("malformed entry")

const entryHead = 1 + 8 + 8 + 2

// append appends the stored form.
func (e *entry) append(dst []byte) []byte {
	flags := byte(0)
	if e.binary {
		flags = 1
	}
	expires := int64(math.MaxInt64)
	if !e.expires.IsZero() {
		expires = e.expires.UnixMicro()
	}
	dst = append(dst, flags)
	dst = binary.BigEndian.AppendUint64(dst, e.version)
	dst = binary.BigEndian.AppendUint64(dst, uint64(expires))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(e.key)))
	return append(append(dst, e.key...), e.value...)
}

// parseEntry reads the stored form.
func parseEntry(b []byte) (*entry, error) {
	if len(b) < entryHead || b[0] > 1 {
		return nil, errEntry
	}
	e := &entry{binary: b[0] == 1, version: binary.BigEndian.Uint64(b[1:])}
	if micros := int64(binary.BigEndian.Uint64(b[9:])); micros != math.MaxInt64 {
		e.expires = time.UnixMicro(micros)
	}
	length := int(binary.BigEndian.Uint16(b[17:]))
	if b = b[entryHead:]; len(b) < length {
		return nil, errEntry
	}
	e.key, e.value = string(b[:length]), b[length:]
	e.size = len(e.value)
	return e, nil
}
