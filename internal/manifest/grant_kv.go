package manifest

import (
	"time"
	"unicode"
	"unicode/utf8"

	"sallyport/internal/ident"
)

// KVGrant keeps values under keys in a bucket of the namespace.
type KVGrant struct {
	// Bucket names the bucket; functions of the namespace that name the same one share it.
	Bucket string
	// Prefix is put before every key, and the function does not see it: it reaches nothing else of the bucket.
	Prefix string
	// ReadOnly refuses every change.
	ReadOnly bool
	// ValueSize bounds a value, and Quota all keys and values of the bucket, in bytes.
	ValueSize, Quota int64
	// TTL is how long a value is kept that is set without a time of its own, and the longest such time; 0 is for ever.
	TTL time.Duration
}

// Limits of what a kv grant may ask for, and what it gets when it does not ask.
const (
	MaxKVValue, DefaultKVValue = 1 << 20, 64 << 10   // bytes
	MaxKVQuota, DefaultKVQuota = 256 << 20, 16 << 20 // bytes
	maxKVPrefix                = 128                 // bytes
	minKVTTL, maxKVTTL         = time.Second, 10 * 365 * 24 * time.Hour
)

// kvGrant reads a grant of kind kv.
func (t *table) kvGrant(g *Grant) {
	kv := &KVGrant{Bucket: t.bucketName("kv"), Prefix: t.keyPrefix(), ValueSize: DefaultKVValue, Quota: DefaultKVQuota}
	t.truth("read_only", &kv.ReadOnly)
	t.size("value_size", &kv.ValueSize, 1, MaxKVValue)
	t.size("quota", &kv.Quota, 1, MaxKVQuota)
	t.duration("ttl", &kv.TTL, minKVTTL, maxKVTTL)
	g.KV = kv
}

func (t *table) bucketName(key string) string {
	name := t.text(key)
	if name == "" {
		return ""
	}
	if err := checkBucketName(name); err != "" {
		t.fault(key, "%s", err)
	}
	return name
}

func checkBucketName(name string) string {
	if _, err := ident.ParseGrantName(name); err != nil {
		return "not the name of a bucket: want lower-case letters, digits and hyphens, beginning with a letter"
	}
	return ""
}

func (t *table) keyPrefix() string {
	if !t.has("prefix") {
		t.known = append(t.known, "prefix")
		return ""
	}
	s := t.text("prefix")
	switch {
	case len(s) > maxKVPrefix:
		t.fault("prefix", "the prefix is %d bytes, at most %d are allowed", len(s), maxKVPrefix)
	case !utf8.ValidString(s) || containsControl(s):
		t.fault("prefix", "the prefix has a control character")
	}
	return s
}

func containsControl(s string) bool {
	for _, r := range s {
		if unicode.IsControl(r) {
			return true
		}
	}
	return false
}
