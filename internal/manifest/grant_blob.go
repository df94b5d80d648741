package manifest

import "time"

// BlobGrant keeps objects of any size under names in a bucket of the namespace.
type BlobGrant struct {
	// Bucket names the bucket; functions of the namespace that name the same one share it. Buckets of kind kv are others.
	Bucket string
	// Prefix is put before every name, and the function does not see it: it reaches nothing else of the bucket.
	Prefix string
	// ReadOnly refuses every change.
	ReadOnly bool
	// ObjectSize bounds an object, and Quota all objects of the bucket, in bytes.
	ObjectSize, Quota int64
	// TTL is how long an object is kept that is stored without a time of its own, and the longest such time; 0 is for ever.
	TTL time.Duration
}

// Limits of what a blob grant may ask for, and what it gets when it does not ask.
const (
	MaxBlobObject, DefaultBlobObject = 16 << 30, 64 << 20 // bytes
	MaxBlobQuota, DefaultBlobQuota   = 1 << 40, 1 << 30   // bytes
)

// blobGrant reads a grant of kind blob.
func (t *table) blobGrant(g *Grant) {
	b := &BlobGrant{Bucket: t.bucketName(KindBlob), Prefix: t.keyPrefix(), ObjectSize: DefaultBlobObject, Quota: DefaultBlobQuota}
	t.truth("read_only", &b.ReadOnly)
	t.size("object_size", &b.ObjectSize, 1, MaxBlobObject)
	t.size("quota", &b.Quota, 1, MaxBlobQuota)
	t.duration("ttl", &b.TTL, minKVTTL, maxKVTTL)
	g.Blob = b
}

func (g *BlobGrant) reaches() []string {
	out := []string{"read blobs " + g.Bucket + "/" + g.Prefix + "*"}
	if !g.ReadOnly {
		out = append(out, "write blobs "+g.Bucket+"/"+g.Prefix+"*")
	}
	return out
}
