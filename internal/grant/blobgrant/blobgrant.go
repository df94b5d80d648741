// Package blobgrant opens grants of kind blob: objects of any size under names, in buckets of a namespace, sealed, durable, read and written in
// parts.
//
// What holds whatever a function asks for:
//
//   - It reaches the objects of its bucket whose names begin with the prefix of its manifest, and does not see the prefix. No operation takes
//     a digest for a name, so nobody can ask whether some content is there.
//   - An object is there whole, with its digest, or not at all. What is answered is on disk. An upload that is not committed, for whatever
//     reason, leaves nothing.
//   - The same content is kept once in a bucket, and never shared between buckets: it is sealed under the key of the namespace. The quota counts it for
//     each name, so that it does not tell what others have.
//   - Content that was changed, cut, moved or exchanged on the disk is not returned.
//   - Bytes of an object, of a bucket and of an answer, open uploads and the length of lists are bounded.
//
// Callers: grant, through its Registry; server, which makes the Kind.
package blobgrant

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
	"sallyport/internal/store"
)

// Operations of a door.
const (
	OpPut    = "put"
	OpGet    = "get"
	OpStat   = "stat"
	OpDelete = "delete"
	OpList   = "list"
	OpOpen   = "open"
	OpWrite  = "write"
	OpCommit = "commit"
	OpAbort  = "abort"
)

const (
	// maxName bounds a name with its prefix, in bytes.
	maxName = 512
	// maxObject bounds what is believed of the size of an object.
	maxObject = manifest.MaxBlobObject
	// maxList bounds the objects of one answer, and defaultList is how many there are when nothing is said.
	maxList, defaultList = 1000, 100
	// maxTTL bounds the time that a function gives an object: ten years.
	maxTTL = 10 * 365 * 24 * time.Hour
	// answerRoom is what is kept free of a reply for its JSON, in bytes.
	answerRoom = 1 << 10
)

// Storage is where the names of a bucket are kept; *store.Bucket is one.
type Storage interface {
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
	List(ctx context.Context, prefix, after string, limit int) ([]store.Entry, error)
}

// Place is where a bucket is kept, beside its folder.
type Place struct {
	Names  Storage
	Sealer Sealer
	// Hide returns the same text for the same name, of which the name cannot be told.
	Hide func(name string) string
}

// Config says where buckets are kept.
type Config struct {
	// Dir is the folder of content; it has a folder for each namespace, and that one for each bucket. Only one process may use it.
	Dir string
	// Open returns the rest of a bucket's place.
	Open func(ctx context.Context, ns ident.Namespace, bucket string) (Place, error)
	// Space returns an error when the disk has no room for more; nil is never.
	Space func() error
	// Admit returns an error when a namespace may not store n bytes more; nil is never. done is called when they are in Stored, or will not be.
	Admit func(ctx context.Context, ns ident.Namespace, n int64) (done func(), err error)
	// Now is the clock; nil is time.Now.
	Now    func() time.Time
	Logger *slog.Logger
}

// Kind opens doors of kind blob. It is safe for concurrent use.
type Kind struct {
	cfg    Config
	stored stored

	mu      sync.Mutex
	buckets map[string]*bucket
}

// New returns the Kind of the buckets in a folder.
func New(cfg Config) (*Kind, error) {
	if cfg.Dir == "" || cfg.Open == nil {
		return nil, errors.New("blobs need a folder, and what opens a bucket")
	}
	if cfg.Space == nil {
		cfg.Space = func() error { return nil }
	}
	if cfg.Admit == nil {
		cfg.Admit = func(context.Context, ident.Namespace, int64) (func(), error) { return func() {}, nil }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	k := &Kind{cfg: cfg, buckets: map[string]*bucket{}}
	return k, k.stored.measure(cfg.Dir)
}

// Stored returns how many bytes of content a namespace has on the disk.
func (k *Kind) Stored(ns ident.Namespace) int64 { return k.stored.of(ns) }

// Open makes a door. Doors of one bucket share it.
func (k *Kind) Open(ctx context.Context, o grant.Opening) (grant.Door, error) {
	g := o.Grant.Blob
	if g == nil {
		return nil, problem.New(problem.Internal, "internal", "grant %q is of another kind", o.Name)
	}
	name := string(o.Namespace) + "/" + g.Bucket // neither has a slash
	k.mu.Lock()
	defer k.mu.Unlock()
	b := k.buckets[name]
	if b == nil {
		at, err := k.cfg.Open(ctx, o.Namespace, g.Bucket)
		if err != nil {
			return nil, err
		}
		b = newBucket(k, o.Namespace, g.Bucket, at)
		k.buckets[name] = b
	}
	b.doors++
	return &door{kind: k, bucket: b, grant: g, reply: o.Grant.Limits.Reply, uploads: map[fileID]*upload{}, rehearsed: map[fileID]*rehearsal{}}, nil
}

// release gives a bucket back; what is kept of it in memory goes with its last door.
func (k *Kind) release(b *bucket) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if b.doors--; b.doors == 0 && k.buckets[b.label] == b {
		delete(k.buckets, b.label)
	}
}

// Remove removes all content of a namespace from the disk. Doors that still have a bucket of it get no answer any more.
func (k *Kind) Remove(ns ident.Namespace) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, b := range k.buckets {
		if strings.HasPrefix(name, string(ns)+"/") {
			b.close()
			delete(k.buckets, name)
		}
	}
	if err := os.RemoveAll(filepath.Join(k.cfg.Dir, string(ns))); err != nil {
		return err
	}
	k.stored.forget(ns)
	return nil
}

type door struct {
	kind   *Kind
	bucket *bucket
	grant  *manifest.BlobGrant
	reply  int64
	closed sync.Once

	mu        sync.Mutex
	uploads   map[fileID]*upload
	rehearsed map[fileID]*rehearsal
}

// Close gives up the uploads that are open, and gives the bucket back.
func (d *door) Close() error {
	d.closed.Do(func() {
		d.mu.Lock()
		open := make([]*upload, 0, len(d.uploads))
		for _, u := range d.uploads {
			open = append(open, u)
		}
		d.mu.Unlock()
		for _, u := range open {
			u.abort()
		}
		d.kind.release(d.bucket)
	})
	return nil
}

// request is what a function sends.
type request struct {
	Name string `json:"name,omitzero"`
	// Version is that of the object to be replaced, deleted or read; 0 is that there is none.
	Version *uint64 `json:"version,omitzero"`
	// Digest is what the content that is stored must have.
	Digest string `json:"digest,omitzero"`
	// TTL is in seconds.
	TTL    float64 `json:"ttl,omitzero"`
	Offset int64   `json:"offset,omitzero"`
	Length *int64  `json:"length,omitzero"`
	Upload string  `json:"upload,omitzero"`
	Prefix string  `json:"prefix,omitzero"`
	After  string  `json:"after,omitzero"`
	Limit  int     `json:"limit,omitzero"`
}

// Do serves one operation.
func (d *door) Do(ctx context.Context, call *grant.Call) (grant.Reply, error) {
	r, err := d.parse(call)
	if err != nil {
		return grant.Reply{}, err
	}
	switch call.Op {
	case OpGet, OpStat:
		return d.get(ctx, r, call.Op == OpStat)
	case OpList:
		return d.list(ctx, r)
	}
	return d.change(ctx, r, call)
}

// changes reports whether an operation changes something.
func changes(op string) bool { return op != OpGet && op != OpStat && op != OpList }

// parse reads what a function sends, of an operation that there is and that it may do.
func (d *door) parse(call *grant.Call) (*request, error) {
	switch call.Op {
	case OpPut, OpGet, OpStat, OpDelete, OpList, OpOpen, OpWrite, OpCommit, OpAbort:
	default:
		return nil, malformed("a blob grant has no operation %q", clip(call.Op))
	}
	var r request
	if err := json.Unmarshal(call.Request, &r, json.RejectUnknownMembers(true)); err != nil {
		return nil, malformed("the request is not of the form that %q takes", call.Op).WithCause(err)
	}
	if d.grant.ReadOnly && changes(call.Op) {
		return nil, problem.New(problem.Denied, "grant.blob_read_only", "the grant only reads, and %q changes something", call.Op).
			WithHint("remove read_only from the grant")
	}
	return &r, nil
}

// change serves an operation that changes something.
func (d *door) change(ctx context.Context, r *request, call *grant.Call) (grant.Reply, error) {
	of := ownerOf(&call.Caller)
	switch call.Op {
	case OpDelete:
		return d.delete(ctx, r)
	case OpPut, OpOpen:
		t, err := d.terms(r)
		if err != nil {
			return grant.Reply{}, err
		}
		u, err := d.open(ctx, of, t)
		if err != nil {
			return grant.Reply{}, err
		}
		if call.Op == OpPut {
			return d.put(ctx, u, call.Body)
		}
		return answer(openAnswer{u.id.String()})
	}
	u, err := d.find(of, r.Upload)
	if err != nil {
		return grant.Reply{}, err
	}
	switch call.Op {
	case OpWrite:
		size, err := u.write(ctx, r.Offset, call.Body)
		if err != nil {
			return grant.Reply{}, err
		}
		return answer(writeAnswer{size})
	case OpAbort:
		u.abort()
		return grant.Reply{}, nil
	}
	return d.commit(ctx, u)
}

// put stores an object whose content is there at once.
func (d *door) put(ctx context.Context, u *upload, body []byte) (grant.Reply, error) {
	if _, err := u.write(ctx, 0, body); err != nil {
		u.abort()
		return grant.Reply{}, err
	}
	return d.commit(ctx, u)
}

func (d *door) commit(ctx context.Context, u *upload) (grant.Reply, error) {
	o, err := u.commit(ctx)
	if err != nil {
		return grant.Reply{}, err
	}
	return answer(describe(o, ""))
}

// terms returns what a request says of an object to be stored.
func (d *door) terms(r *request) (t terms, err error) {
	t.version = r.Version
	if t.name, err = d.name(r.Name); err != nil {
		return t, err
	}
	if r.Digest != "" {
		want, ok := parseDigest(r.Digest)
		if !ok {
			return t, malformed("the digest is not sha256: and 64 hexadecimal digits")
		}
		t.digest = &want
	}
	t.expires, err = d.expiry(r.TTL)
	return t, err
}

// name returns a function's name for an object as the bucket knows it.
func (d *door) name(name string) (string, error) {
	full := d.grant.Prefix + name
	switch {
	case name == "":
		return "", malformed("the name is empty")
	case len(full) > maxName:
		return "", malformed("the name is longer than %d bytes", maxName-len(d.grant.Prefix))
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return "", malformed("the name has a control character")
	}
	return full, nil
}

// expiry returns when an object ends that is stored now, and the zero time for never.
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

// described is an object as a function sees it.
type described struct {
	Name    string `json:"name,omitzero"`
	Digest  string `json:"digest"`
	Size    int64  `json:"size"`
	Version uint64 `json:"version"`
	Expires string `json:"expires,omitzero"`
}

func describe(o *object, name string) described {
	out := described{Name: name, Digest: o.content.digest.String(), Size: o.content.size, Version: o.version}
	if !o.expires.IsZero() {
		out.Expires = o.expires.UTC().Format(time.RFC3339Nano)
	}
	return out
}

// get returns a part of an object, or says what it is. One that is not there is null, unless a version of it was asked for.
func (d *door) get(ctx context.Context, r *request, only bool) (grant.Reply, error) {
	name, err := d.name(r.Name)
	if err != nil {
		return grant.Reply{}, err
	}
	for {
		o, err := d.bucket.find(ctx, name)
		switch {
		case err != nil:
			return grant.Reply{}, err
		case r.Version != nil && (o == nil || o.version != *r.Version):
			return grant.Reply{}, changed("the object was replaced or deleted while it was read")
		case o == nil:
			return grant.Reply{}, nil
		}
		reply, err := answer(describe(o, ""))
		if err != nil || only {
			return reply, err
		}
		length, err := d.length(r, o)
		if err != nil {
			return grant.Reply{}, err
		}
		body, there, err := d.bucket.read(make([]byte, 0, length), o, r.Offset, length)
		if err != nil || there {
			reply.Body = body
			return reply, err
		}
		if err := ctx.Err(); err != nil {
			return grant.Reply{}, err
		}
	}
}

// length returns how many bytes are read: as many as fit into a reply when nothing is said.
func (d *door) length(r *request, o *object) (int64, error) {
	most := max(d.reply-answerRoom, 1)
	length := most
	if r.Length != nil {
		length = *r.Length
	}
	size := o.content.size
	switch {
	case r.Offset < 0 || r.Offset > size || length < 0:
		return 0, malformed("the object has %d bytes, and the part that was asked for is not in it", size)
	case min(length, size-r.Offset) > most:
		return 0, problem.New(problem.TooLarge, "grant.blob_too_large", "the part is larger than the %d bytes that one reply holds", most).
			WithHint("read a smaller part, or raise limits.reply of the grant")
	}
	return min(length, size-r.Offset), nil
}

func (d *door) delete(ctx context.Context, r *request) (grant.Reply, error) {
	name, err := d.name(r.Name)
	if err != nil {
		return grant.Reply{}, err
	}
	deleted, err := d.bucket.delete(ctx, name, r.Version)
	if err != nil {
		return grant.Reply{}, err
	}
	return answer(deleteAnswer{deleted})
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
	objects, more, err := d.bucket.list(ctx, d.grant.Prefix+r.Prefix, after, limit)
	if err != nil {
		return grant.Reply{}, err
	}
	out := listAnswer{Objects: make([]described, 0, len(objects))}
	for _, o := range objects {
		out.Objects = append(out.Objects, describe(o, strings.TrimPrefix(o.name, d.grant.Prefix)))
	}
	if more && len(out.Objects) > 0 {
		out.After = out.Objects[len(out.Objects)-1].Name
	}
	return answer(out)
}

// limit returns how many objects a list has at most.
func (r *request) limit() (int, error) {
	if r.Limit < 0 || r.Limit > maxList || len(r.Prefix) > maxName || len(r.After) > maxName {
		return 0, malformed("a list has 1 to %d objects, and a prefix of at most %d bytes", maxList, maxName)
	}
	if r.Limit == 0 {
		return defaultList, nil
	}
	return r.Limit, nil
}

// What operations answer with, beside described.
type (
	openAnswer struct {
		Upload string `json:"upload"`
	}
	writeAnswer struct {
		Size int64 `json:"size"`
	}
	deleteAnswer struct {
		Deleted bool `json:"deleted"`
	}
	listAnswer struct {
		Objects []described `json:"objects"`
		// After is what the next list begins after; it is empty when there is no more.
		After string `json:"after,omitzero"`
	}
)

func answer[T any](v T) (grant.Reply, error) {
	text, err := json.Marshal(v)
	return grant.Reply{JSON: text}, err
}

func malformed(format string, args ...any) *problem.Error {
	return problem.New(problem.Invalid, "grant.blob_request", format, args...)
}

// clip keeps a hostile name from filling a message.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
