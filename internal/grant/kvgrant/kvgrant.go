// Package kvgrant opens grants of kind kv: values under keys, in buckets of a namespace, sealed, durable, with versions.
//
// What holds whatever a function asks for:
//
//   - It reaches the keys of its bucket that begin with the prefix of its manifest, and does not see the prefix.
//   - A change is on disk when it is answered. Changes of a bucket follow one another: a version that compareAndSet names is the one that
//     is replaced, or nothing is. A version is never used again.
//   - Keys and values are sealed; a key is known to the disk by a keyed digest.
//   - Bytes of a value and of a bucket, and the length of lists are bounded. A value that takes more on the disk than the one before is stored after
//     the namespace was asked, and counted before anything else is.
//
// Callers: grant, through its Registry; server, which makes the Kind.
package kvgrant

import (
	"context"
	"maps"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/grant"
	"sallyport/internal/grant/tally"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

// Operations of a door.
const (
	OpGet           = "get"
	OpSet           = "set"
	OpCompareAndSet = "compareAndSet"
	OpDelete        = "delete"
	OpIncrement     = "increment"
	OpList          = "list"
)

const (
	// maxKey bounds a key with its prefix, in bytes.
	maxKey = 512
	// maxList bounds the keys of one answer, and defaultList is how many there are when nothing is said.
	maxList, defaultList = 1000, 100
	// maxTTL bounds the time that a function gives a value: ten years.
	maxTTL = 10 * 365 * 24 * time.Hour
)

// Storage is where a bucket is kept; *store.Bucket is one.
type Storage interface {
	Get(ctx context.Context, key string) ([]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
	List(ctx context.Context, prefix, after string, limit int) ([]store.Entry, error)
	// Size returns how many keys there are, and the bytes of their values as they are stored.
	Size(ctx context.Context) (keys int, bytes int64, err error)
}

// Config says where buckets are kept.
type Config struct {
	// Open returns the storage of a bucket, and what hides its keys: the same text for the same key, of which the key cannot be told.
	Open func(ctx context.Context, ns ident.Namespace, bucket string) (Storage, func(key string) string, error)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Names returns the buckets of a namespace that have something; nil is none.
	Names func(ctx context.Context, ns ident.Namespace) ([]string, error)
	// Ready is called before a value is stored, when nothing is held: it finds out what the namespace keeps. Admit returns an error when it may
	// not keep n bytes more; done is called when they are in Stored, or will not be. Without them nothing is asked.
	Ready func(ctx context.Context, ns ident.Namespace) error
	Admit func(ns ident.Namespace, n int64) (done func(), err error)
}

// Kind opens doors of kind kv. It is safe for concurrent use.
type Kind struct {
	cfg Config

	stored tally.Tally // what buckets take on the disk, also those without a door

	mu      sync.Mutex
	buckets map[string]*bucket
}

// New returns the Kind of the buckets that cfg opens.
func New(cfg Config) *Kind {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Names == nil {
		cfg.Names = func(context.Context, ident.Namespace) ([]string, error) { return nil, nil }
	}
	if cfg.Ready == nil {
		cfg.Ready = func(context.Context, ident.Namespace) error { return nil }
	}
	if cfg.Admit == nil {
		cfg.Admit = func(ident.Namespace, int64) (func(), error) { return func() {}, nil }
	}
	return &Kind{cfg: cfg, buckets: map[string]*bucket{}}
}

// Open makes a door. Doors of one bucket share it.
func (k *Kind) Open(ctx context.Context, o grant.Opening) (grant.Door, error) {
	g := o.Grant.KV
	if g == nil {
		return nil, problem.New(problem.Internal, "internal", "grant %q is of another kind", o.Name)
	}
	b, err := k.hold(ctx, o.Namespace, g.Bucket)
	if err != nil {
		return nil, err
	}
	return &door{kind: k, bucket: b, grant: g, reply: int(o.Grant.Limits.Reply)}, nil
}

// hold returns a bucket, which release gives back.
func (k *Kind) hold(ctx context.Context, ns ident.Namespace, name string) (*bucket, error) {
	label := string(ns) + "/" + name // neither has a slash
	k.mu.Lock()
	defer k.mu.Unlock()
	b := k.buckets[label]
	if b == nil {
		storage, hide, err := k.cfg.Open(ctx, ns, name)
		if err != nil {
			return nil, err
		}
		b = newBucket(k, ns, name, storage, hide)
		k.buckets[label] = b
	}
	b.doors++
	return b, nil
}

// release gives a bucket back; what is kept of it in memory goes with its last door.
func (k *Kind) release(b *bucket) {
	k.mu.Lock()
	defer k.mu.Unlock()
	name := string(b.ns) + "/" + b.name
	if b.doors--; b.doors == 0 && k.buckets[name] == b {
		delete(k.buckets, name)
	}
}

// Forget drops what is kept in memory of the buckets of a namespace that was removed: another of its name begins empty.
func (k *Kind) Forget(ns ident.Namespace) {
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.DeleteFunc(k.buckets, func(name string, _ *bucket) bool { return strings.HasPrefix(name, string(ns)+"/") })
	k.stored.Forget(ns)
}

// Stored returns the bytes that the buckets of a namespace take on the disk, as far as they were measured or used.
func (k *Kind) Stored(ns ident.Namespace) int64 { return k.stored.Of(ns) }

// Measure finds out what Stored returns, unless that is known. The caller holds nothing that a use may wait for.
func (k *Kind) Measure(ctx context.Context, ns ident.Namespace) error {
	return k.stored.Measure(ns, func() error {
		names, err := k.cfg.Names(ctx, ns)
		if err != nil {
			return err
		}
		for _, name := range names {
			if k.stored.Has(ns, name) {
				continue
			}
			b, err := k.hold(ctx, ns, name)
			if err != nil {
				return err
			}
			err = b.measure(ctx)
			k.release(b)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

type door struct {
	kind   *Kind
	bucket *bucket
	grant  *manifest.KVGrant
	reply  int
	closed sync.Once
}

// Close gives the bucket back.
func (d *door) Close() error {
	d.closed.Do(func() { d.kind.release(d.bucket) })
	return nil
}

// request is what a function sends.
type request struct {
	Key   string         `json:"key,omitzero"`
	Value jsontext.Value `json:"value,omitzero"`
	// Version is that of the value to be replaced; 0 is that there is none.
	Version *uint64 `json:"version,omitzero"`
	// TTL is in seconds.
	TTL    float64 `json:"ttl,omitzero"`
	By     *int64  `json:"by,omitzero"`
	Prefix string  `json:"prefix,omitzero"`
	After  string  `json:"after,omitzero"`
	Limit  int     `json:"limit,omitzero"`
}

// Do serves one operation.
func (d *door) Do(ctx context.Context, call *grant.Call) (grant.Reply, error) {
	r, key, err := d.read(call)
	if err != nil {
		return grant.Reply{}, err
	}
	switch call.Op {
	case OpList:
		return d.list(ctx, r)
	case OpGet:
		return d.get(ctx, key)
	case OpDelete:
		return d.delete(ctx, key, r)
	case OpIncrement:
		return d.increment(ctx, key, r)
	}
	return d.set(ctx, key, r, call)
}

// read reads what a function sends, and checks that the grant has such an operation.
func (d *door) read(call *grant.Call) (*request, string, error) {
	var r request
	if err := json.Unmarshal(call.Request, &r, json.RejectUnknownMembers(true)); err != nil {
		return nil, "", malformed("the request is not of the form that %q takes", clip(call.Op)).WithCause(err)
	}
	if call.Op == OpList {
		return &r, "", nil
	}
	key, err := d.key(r.Key)
	if err != nil || call.Op == OpGet {
		return &r, key, err
	}
	if d.grant.ReadOnly {
		return nil, "", problem.New(problem.Denied, "grant.kv_read_only", "the grant only reads, and %q changes something", clip(call.Op))
	}
	switch call.Op {
	case OpDelete, OpIncrement, OpSet, OpCompareAndSet:
		return &r, key, nil
	}
	return nil, "", malformed("a kv grant has no operation %q", clip(call.Op))
}

// key returns a function's key as the bucket knows it.
func (d *door) key(key string) (string, error) {
	full := d.grant.Prefix + key
	switch {
	case key == "":
		return "", malformed("the key is empty")
	case len(full) > maxKey:
		return "", problem.New(problem.TooLarge, "grant.kv_too_large", "the key is longer than %d bytes", maxKey-len(d.grant.Prefix))
	case !utf8.ValidString(key) || strings.ContainsFunc(key, unicode.IsControl):
		return "", malformed("the key has a control character")
	}
	return full, nil
}

func (d *door) get(ctx context.Context, key string) (grant.Reply, error) {
	e, err := d.bucket.get(ctx, key)
	if err != nil || e == nil {
		return grant.Reply{}, err
	}
	out := append(make([]byte, 0, len(e.value)+64), '{')
	var body []byte
	if e.binary {
		body = e.value
	} else {
		out = append(append(append(out, `"value":`...), e.value...), ',')
	}
	return grant.Reply{JSON: append(e.describe(out), '}'), Body: body}, nil
}

// expiry returns when a value ends that is set now, and the zero time for never.
func (d *door) expiry(seconds float64) (time.Time, error) {
	ttl := time.Duration(seconds * float64(time.Second))
	switch {
	case seconds < 0 || seconds > maxTTL.Seconds() || seconds != 0 && ttl < time.Millisecond:
		return time.Time{}, malformed("the ttl is not a number of seconds up to ten years")
	case d.grant.TTL > 0 && ttl > d.grant.TTL:
		return time.Time{}, malformed("the ttl is longer than the %s of the grant", d.grant.TTL)
	case ttl == 0:
		ttl = d.grant.TTL
	}
	if ttl == 0 {
		return time.Time{}, nil
	}
	return d.kind.cfg.Now().Add(ttl), nil
}

func (d *door) set(ctx context.Context, key string, r *request, call *grant.Call) (grant.Reply, error) {
	e, err := d.entry(key, r, call)
	if err != nil {
		return grant.Reply{}, err
	}
	if err := d.kind.cfg.Ready(ctx, d.bucket.ns); err != nil {
		return grant.Reply{}, err
	}
	set, current, err := d.bucket.set(ctx, e, r.Version, d.grant.Quota)
	if err != nil {
		return grant.Reply{}, err
	}
	return answer(setAnswer{set, current})
}

// The answers that functions get.
type (
	setAnswer struct {
		Set     bool   `json:"set"`
		Version uint64 `json:"version"`
	}
	deleteAnswer struct {
		Deleted bool `json:"deleted"`
	}
	incrementAnswer struct {
		Value   int64  `json:"value"`
		Version uint64 `json:"version"`
	}
	listAnswer struct {
		Keys []listed `json:"keys"`
		// After is what the next list begins after; it is empty when there is no more.
		After string `json:"after,omitzero"`
	}
)

// entry returns what a set would store.
func (d *door) entry(key string, r *request, call *grant.Call) (*entry, error) {
	// To a module no bytes and none are the same: without a value the body counts, which may be empty, and beside one only when it is not.
	e := &entry{key: key, value: r.Value, binary: r.Value == nil}
	if e.binary {
		e.value = call.Body
	}
	switch {
	case r.Value != nil && len(call.Body) > 0:
		return nil, malformed("a value is set to JSON or to bytes, not to both")
	case int64(len(e.value)) > d.grant.ValueSize:
		return nil, problem.New(problem.TooLarge, "grant.kv_too_large", "the value is %d bytes, the grant takes %d", len(e.value), d.grant.ValueSize)
	case call.Op == OpCompareAndSet && r.Version == nil:
		return nil, malformed("compareAndSet needs the version that is to be replaced, or 0")
	case call.Op == OpSet && r.Version != nil:
		return nil, malformed("set takes no version; compareAndSet does")
	}
	var err error
	if e.expires, err = d.expiry(r.TTL); err != nil {
		return nil, err
	}
	return e, nil
}

func (d *door) delete(ctx context.Context, key string, r *request) (grant.Reply, error) {
	deleted, err := d.bucket.delete(ctx, key, r.Version)
	if err != nil {
		return grant.Reply{}, err
	}
	return answer(deleteAnswer{deleted})
}

func (d *door) increment(ctx context.Context, key string, r *request) (grant.Reply, error) {
	by := r.by()
	expires, err := d.expiry(r.TTL)
	if err != nil {
		return grant.Reply{}, err
	}
	if err := d.kind.cfg.Ready(ctx, d.bucket.ns); err != nil {
		return grant.Reply{}, err
	}
	value, version, err := d.bucket.increment(ctx, key, by, expires, d.grant.Quota)
	if err != nil {
		return grant.Reply{}, err
	}
	return answer(incrementAnswer{value, version})
}

// by returns how much is added.
func (r *request) by() int64 {
	if r.By == nil {
		return 1
	}
	return *r.By
}

// listed is a key in a list.
type listed struct {
	Key     string `json:"key"`
	Version uint64 `json:"version"`
	Size    int    `json:"size"`
	Expires string `json:"expires,omitzero"`
}

// limit returns how many keys are listed at most.
func (r *request) limit() (int, error) {
	limit := r.Limit
	if limit == 0 {
		limit = defaultList
	}
	if limit < 0 || limit > maxList || len(r.Prefix) > maxKey || len(r.After) > maxKey {
		return 0, malformed("a list has 1 to %d keys, and a prefix of at most %d bytes", maxList, maxKey)
	}
	return limit, nil
}

func (d *door) list(ctx context.Context, r *request) (grant.Reply, error) {
	limit, err := r.limit()
	if err != nil {
		return grant.Reply{}, err
	}
	after := ""
	if r.After != "" {
		after = d.grant.Prefix + r.After
	}
	entries, more, err := d.bucket.list(ctx, d.grant.Prefix+r.Prefix, after, limit)
	if err != nil {
		return grant.Reply{}, err
	}
	out := listAnswer{Keys: make([]listed, 0, len(entries))}
	for _, e := range entries {
		l := listed{Key: strings.TrimPrefix(e.key, d.grant.Prefix), Version: e.version, Size: e.size}
		if !e.expires.IsZero() {
			l.Expires = e.expires.UTC().Format(time.RFC3339Nano)
		}
		out.Keys = append(out.Keys, l)
	}
	if more && len(out.Keys) > 0 {
		out.After = out.Keys[len(out.Keys)-1].Key
	}
	return answer(out)
}

func answer[T any](v T) (grant.Reply, error) {
	text, err := json.Marshal(v)
	return grant.Reply{JSON: text}, err
}

func malformed(format string, args ...any) *problem.Error {
	return problem.New(problem.Invalid, "grant.kv_request", format, args...)
}

// clip keeps a hostile name from filling a message.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
