package manifest

import (
	"maps"
	"slices"
	"strings"
	"time"

	"sallyport/internal/ident"
)

// Grant is a named authority of a function. Exactly one of its kinds is set.
type Grant struct {
	// Publish lists the event types that the function may publish. It is the one kind that is not used while a function
	// runs, but decides about its result, and has no Limits.
	Publish []ident.EventType
	HTTP    *HTTPGrant
	SQL     *SQLGrant
	KV      *KVGrant
	Blob    *BlobGrant
	Secret  *SecretGrant
	Invoke  *InvokeGrant
	// Identity is the function's own identity, as tokens for others.
	Identity *IdentityGrant

	Limits GrantLimits
}

// GrantLimits bound the uses of a grant; what they bound "at a time" or "in a second" is counted over all
// invocations of the function on this server.
type GrantLimits struct {
	// Rate is the most uses in a second, and Concurrency the most at a time.
	Rate, Concurrency int
	// Timeout is the most time that one use may take; the invocation's own timeout holds besides.
	Timeout time.Duration
	// Request and Reply are the most bytes of one request and of one reply, with their bodies.
	Request, Reply int64
	// Bytes is the most that one invocation sends and receives through the grant, on all its uses together.
	Bytes int64
}

// Limits of what a grant may ask for, and what it gets when it does not ask.
const (
	MaxGrantRate, DefaultGrantRate               = 1_000_000, 10_000
	MaxGrantConcurrency, DefaultGrantConcurrency = 4096, 1024
	DefaultGrantTimeout                          = 10 * time.Second
	MaxGrantRequest, DefaultGrantRequest         = 8 << 20, 1 << 20  // bytes
	MaxGrantReply, DefaultGrantReply             = 16 << 20, 4 << 20 // bytes
	// MaxGrantBytes lets the largest object be read and written within one invocation.
	MaxGrantBytes, DefaultGrantBytes = 64 << 30, 256 << 20 // bytes of one invocation
)

// DefaultGrantLimits returns what a grant gets that says nothing.
func DefaultGrantLimits() GrantLimits {
	return GrantLimits{
		Rate: DefaultGrantRate, Concurrency: DefaultGrantConcurrency, Timeout: DefaultGrantTimeout,
		Request: DefaultGrantRequest, Reply: DefaultGrantReply, Bytes: DefaultGrantBytes,
	}
}

// The kinds of grant, as manifests and people call them.
const (
	KindPublish  = "publish"
	KindHTTP     = "http"
	KindSQL      = "sql"
	KindKV       = "kv"
	KindBlob     = "blob"
	KindSecret   = "secret"
	KindInvoke   = "invoke"
	KindIdentity = "identity"
)

// Kind returns the kind of the grant.
func (g Grant) Kind() string {
	switch {
	case g.HTTP != nil:
		return KindHTTP
	case g.SQL != nil:
		return KindSQL
	case g.KV != nil:
		return KindKV
	case g.Blob != nil:
		return KindBlob
	case g.Secret != nil:
		return KindSecret
	case g.Invoke != nil:
		return KindInvoke
	case g.Identity != nil:
		return KindIdentity
	}
	return KindPublish
}

// grantKinds are the kinds, each with what reads its keys.
func grantKinds() map[string]func(*table, *Grant) {
	return map[string]func(*table, *Grant){
		KindPublish:  (*table).publishGrant,
		KindHTTP:     (*table).httpGrant,
		KindSQL:      (*table).sqlGrant,
		KindKV:       (*table).kvGrant,
		KindBlob:     (*table).blobGrant,
		KindSecret:   (*table).secretGrant,
		KindInvoke:   (*table).invokeGrant,
		KindIdentity: (*table).identityGrant,
	}
}

// grant reads one grant. Its kind is the one key of grantKinds that it has.
func (t *table) grant() Grant {
	var g Grant
	var kind string
	kinds := grantKinds()
	for _, key := range t.n.order {
		switch {
		case kinds[key] == nil:
		case kind == "":
			kind = key
		default:
			t.d.fault(t.n.members[key].key, "the grant is of two kinds, %s and %s; make it two grants", kind, key)
			return g
		}
	}
	if kind == "" {
		all := slices.Sorted(maps.Keys(kinds))
		t.known = append(t.known, all...)
		t.need(KindPublish, `the grant names nothing; add publish = ["some.type"], or another of %s`, strings.Join(all, ", "))
		t.done()
		return g
	}
	kinds[kind](t, &g)
	if kind != KindPublish {
		g.Limits = t.table("limits").grantLimits(g)
	}
	t.done()
	return g
}

func (t *table) grantLimits(g Grant) GrantLimits {
	defer t.done()
	l := DefaultGrantLimits()
	if g.Blob != nil { // an object of the largest size can be read and written
		l.Bytes = min(max(l.Bytes, 2*g.Blob.ObjectSize), MaxGrantBytes)
	}
	t.integer("rate", &l.Rate, 1, MaxGrantRate)
	t.integer("concurrency", &l.Concurrency, 1, MaxGrantConcurrency)
	t.duration("timeout", &l.Timeout, MinTimeout, MaxTimeout)
	t.size("request", &l.Request, 1, MaxGrantRequest)
	t.size("reply", &l.Reply, 1, MaxGrantReply)
	t.size("bytes", &l.Bytes, 1, MaxGrantBytes)
	return l
}

func (t *table) publishGrant(g *Grant) {
	g.Publish = t.publish()
}

func (t *table) publish() []ident.EventType {
	var types []ident.EventType
	for _, n := range t.texts("publish", maxPublish) {
		typ, err := ident.ParseEventType(n.text)
		if err != nil {
			t.d.fault(n.value, "%s", words(err))
			continue
		}
		types = append(types, typ)
	}
	if n := t.n.members["publish"]; n != nil && n.kind == kindList && len(n.items) == 0 {
		t.d.fault(n.value, `the grant names nothing; add an event type, or leave the grant out`)
	}
	return types
}
