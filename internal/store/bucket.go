package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
)

// All buckets and the wrapped keys are in one JetStream stream: the last message of a subject ("kv",
// bucket, key) is the value. So a bucket costs nothing, and an empty server has one stream to open.
//
// JetStream's own limit of one message per subject is not used. It drops a superseded message without
// a trace on disk; when its successor is deleted and then the power fails, recovery finds the old one
// and takes it for the value: a revoked token would be valid again. So superseded messages are purged
// by us, which leaves a synced tombstone for each. TestPowerCut holds that.
const (
	stateStream  = "state"
	bucketPrefix = "kv."
	keysPrefix   = "keys."
)

func (e *Engine) openState(ctx context.Context) error {
	return e.openStream(ctx, jetstream.StreamConfig{
		Name:     stateStream,
		Subjects: []string{bucketPrefix + ">", keysPrefix + ">"},
	})
}

// Bucket is a sealed key-value space for control state: its keys are kept in memory once it is listed.
// It is safe for concurrent use; its writes follow one another, each with a sync to disk.
type Bucket struct {
	engine *Engine
	sealer Sealer
	name   string
	prefix string // of its subjects
	index  *bucketIndex
}

// bucketIndex is what all handles of a bucket share.
type bucketIndex struct {
	writing sync.Mutex // held while a key is written or removed, or the keys are loaded

	mu     sync.RWMutex // guards what follows; never held across I/O
	loaded bool
	keys   []string // sorted
}

// Entry is a key of a bucket with its value.
type Entry struct {
	Key   string
	Value []byte
}

// Bucket opens a bucket. Nothing is read or written until it is used. A value opens only under its own
// bucket and key.
func (e *Engine) Bucket(_ context.Context, name string, sealer Sealer) (*Bucket, error) {
	if name == "" || len(name) > MaxName {
		return nil, fmt.Errorf("bucket name is %d bytes long, want 1 to %d", len(name), MaxName)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	index := e.buckets[name]
	if index == nil {
		index = &bucketIndex{}
		e.buckets[name] = index
	}
	return &Bucket{engine: e, sealer: sealer, name: name, prefix: bucketPrefix + escape(name) + ".", index: index}, nil
}

// Get returns the value of key, or ErrNotFound.
func (b *Bucket) Get(ctx context.Context, key string) ([]byte, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	m, err := b.engine.getState(ctx, b.prefix+escape(key))
	if err != nil {
		return nil, err
	}
	return b.open(key, m.data)
}

// Put stores value under key and returns when it is on disk.
func (b *Bucket) Put(ctx context.Context, key string, value []byte) error {
	return b.put(ctx, key, value, false)
}

// Create is Put for a key that is not there yet; it returns ErrExists when it is.
func (b *Bucket) Create(ctx context.Context, key string, value []byte) error {
	return b.put(ctx, key, value, true)
}

func (b *Bucket) put(ctx context.Context, key string, value []byte, create bool) error {
	if err := checkKey(key); err != nil {
		return err
	}
	sealed, err := b.sealer.Seal(nil, value, b.additional(key))
	if err != nil {
		return fmt.Errorf("seal a value of bucket %s: %w", b.name, err)
	}
	if len(sealed) > MaxPayload {
		return fmt.Errorf("put %d bytes in bucket %s: %w", len(sealed), b.name, ErrTooLarge)
	}
	if err := b.engine.space(b.engine.minFree / 2); err != nil {
		return err
	}
	b.index.writing.Lock()
	defer b.index.writing.Unlock()
	if err := b.load(ctx); err != nil {
		return err
	}
	exists := b.index.has(key)
	if exists && create {
		return ErrExists
	}
	if err := b.engine.putState(ctx, b.prefix+escape(key), sealed, exists); err != nil {
		b.index.forget() // whether it is stored is not known
		return err
	}
	b.index.insert(key)
	return nil
}

// Delete removes key. That it is not there is no error.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	b.index.writing.Lock()
	defer b.index.writing.Unlock()
	if err := b.engine.purgeState(ctx, b.prefix+escape(key)); err != nil {
		b.index.forget()
		return err
	}
	b.index.remove(key)
	return nil
}

// BucketNames returns the names of the buckets that hold something and begin with prefix.
func (e *Engine) BucketNames(ctx context.Context, prefix string) ([]string, error) {
	found := map[string]bool{}
	err := e.do(ctx, func(ctx context.Context, l *link) error {
		if err := l.barrier(ctx, bucketPrefix+"-.-"); err != nil { // an earlier write may still be under way
			return wrap("list", "buckets", err)
		}
		stream, err := l.js.Stream(ctx, stateStream)
		if err != nil {
			return wrap("open stream", stateStream, err)
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(bucketPrefix+">"))
		if err != nil {
			return wrap("list", "buckets", err)
		}
		for subject := range info.State.Subjects {
			token, _, _ := strings.Cut(strings.TrimPrefix(subject, bucketPrefix), ".")
			name, err := unescape(token)
			if err != nil {
				return wrap("read the name of", "a bucket", err)
			}
			if strings.HasPrefix(name, prefix) {
				found[name] = true
			}
		}
		return nil
	})
	return slices.Sorted(maps.Keys(found)), err
}

// Clear removes every key. Nothing else may write meanwhile.
func (b *Bucket) Clear(ctx context.Context) error {
	keys, err := b.Keys(ctx, "", "", 0)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := b.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// List returns the entries whose keys have the prefix and are greater than after, sorted by key: at
// most limit, or all when limit is 0. An entry that is removed meanwhile may be missing.
func (b *Bucket) List(ctx context.Context, prefix, after string, limit int) ([]Entry, error) {
	keys, err := b.Keys(ctx, prefix, after, limit)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(keys))
	for chunk := range slices.Chunk(keys, listChunk) {
		found, err := b.getMany(ctx, chunk)
		if err != nil {
			return nil, err
		}
		entries = append(entries, found...)
	}
	return entries, nil
}

// listChunk is how many values are asked for at once: their subjects fit in one request.
const listChunk = 256

// Size returns how many keys there are, and the bytes of their values as they are stored, without opening any.
func (b *Bucket) Size(ctx context.Context) (keys int, bytes int64, err error) {
	names, err := b.Keys(ctx, "", "", 0)
	if err != nil {
		return 0, 0, err
	}
	for chunk := range slices.Chunk(names, listChunk) {
		sealed, more, err := b.getSealed(ctx, chunk)
		if err != nil {
			return 0, 0, err
		}
		for _, key := range chunk {
			data, ok := sealed[b.prefix+escape(key)]
			if !ok && more > 0 {
				m, err := b.engine.getState(ctx, b.prefix+escape(key))
				if errors.Is(err, ErrNotFound) {
					continue
				}
				if err != nil {
					return 0, 0, err
				}
				data, ok = m.data, true
			}
			if ok {
				keys, bytes = keys+1, bytes+int64(len(data))
			}
		}
	}
	return keys, bytes, nil
}

// getSealed returns the values of keys that are there, by subject, as they are stored. When more is not 0 some are missing, because all together
// are too large for one answer.
func (b *Bucket) getSealed(ctx context.Context, keys []string) (sealed map[string][]byte, more uint64, err error) {
	req := directRequest{Batch: len(keys), MaxBytes: readBytes}
	for _, key := range keys {
		req.MultiLast = append(req.MultiLast, b.prefix+escape(key))
	}
	sealed = make(map[string][]byte, len(keys))
	err = b.engine.read(ctx, func(ctx context.Context, l *link) (err error) {
		more, err = l.getBatch(ctx, stateStream, req, func(m message) error {
			sealed[m.subject] = m.data
			return nil
		})
		return err
	})
	return sealed, more, err
}

// getMany returns the entries of keys that are there.
func (b *Bucket) getMany(ctx context.Context, keys []string) ([]Entry, error) {
	sealed, more, err := b.getSealed(ctx, keys)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(keys))
	for _, key := range keys {
		data, ok := sealed[b.prefix+escape(key)]
		switch {
		case !ok && more == 0:
			continue // removed meanwhile
		case !ok: // the values together are too large for one answer
			value, err := b.Get(ctx, key)
			if errors.Is(err, ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
			entries = append(entries, Entry{Key: key, Value: value})
		default:
			value, err := b.open(key, data)
			if err != nil {
				return nil, err
			}
			entries = append(entries, Entry{Key: key, Value: value})
		}
	}
	return entries, nil
}

// Keys is List without the values.
func (b *Bucket) Keys(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := b.loadOnce(ctx); err != nil {
		return nil, err
	}
	b.index.mu.RLock()
	defer b.index.mu.RUnlock()
	first, _ := slices.BinarySearch(b.index.keys, max(prefix, after))
	var keys []string
	for _, key := range b.index.keys[first:] {
		if !strings.HasPrefix(key, prefix) || limit > 0 && len(keys) == limit {
			break
		}
		if key > after {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// loadOnce is load for a reader.
func (b *Bucket) loadOnce(ctx context.Context) error {
	if b.index.isLoaded() {
		return nil
	}
	b.index.writing.Lock()
	defer b.index.writing.Unlock()
	return b.load(ctx)
}

// load reads the bucket's keys when that was not done yet. b.index.writing is held.
func (b *Bucket) load(ctx context.Context) error {
	if b.index.isLoaded() {
		return nil
	}
	var keys []string
	err := b.engine.do(ctx, func(ctx context.Context, l *link) error {
		if err := l.barrier(ctx, b.prefix+"-"); err != nil { // an earlier write may still be under way
			return wrap("list the keys of bucket", b.name, err)
		}
		stream, err := l.js.Stream(ctx, stateStream)
		if err != nil {
			return wrap("open stream", stateStream, err)
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(b.prefix+"*"))
		if err != nil {
			return wrap("list the keys of bucket", b.name, err)
		}
		keys = make([]string, 0, len(info.State.Subjects))
		for subject := range info.State.Subjects {
			key, err := unescape(strings.TrimPrefix(subject, b.prefix))
			if err != nil {
				return wrap("read a key of bucket", b.name, err)
			}
			keys = append(keys, key)
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.Sort(keys)
	b.index.mu.Lock()
	defer b.index.mu.Unlock()
	b.index.keys, b.index.loaded = keys, true
	return nil
}

func (x *bucketIndex) isLoaded() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.loaded
}

func (x *bucketIndex) has(key string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	_, ok := slices.BinarySearch(x.keys, key)
	return ok
}

func (x *bucketIndex) forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.keys, x.loaded = nil, false
}

func (x *bucketIndex) insert(key string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if i, ok := slices.BinarySearch(x.keys, key); x.loaded && !ok {
		x.keys = slices.Insert(x.keys, i, key)
	}
}

func (x *bucketIndex) remove(key string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if i, ok := slices.BinarySearch(x.keys, key); x.loaded && ok {
		x.keys = slices.Delete(x.keys, i, i+1)
	}
}

// additional binds a value to its bucket and key.
func (b *Bucket) additional(key string) []byte {
	aad := append([]byte("bucket\x00"), binary.AppendUvarint(nil, uint64(len(b.name)))...)
	return append(append(aad, b.name...), key...)
}

func (b *Bucket) open(key string, sealed []byte) ([]byte, error) {
	value, err := b.sealer.Open(nil, sealed, b.additional(key))
	if err != nil {
		return nil, fmt.Errorf("open the value of key %q in bucket %s: %w", key, b.name, err)
	}
	return value, nil
}

func checkKey(key string) error {
	if key == "" {
		return errors.New("key is empty")
	}
	if len(key) > MaxKey {
		return fmt.Errorf("key is %d bytes long, want at most %d: %w", len(key), MaxKey, ErrTooLarge)
	}
	return nil
}
