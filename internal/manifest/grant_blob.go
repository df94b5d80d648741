package manifest

// BlobGrant keeps large values, each under the digest of its content, in a bucket of the namespace.
type BlobGrant struct {
	// Bucket names the bucket; functions of the namespace that name the same one share it.
	Bucket string
	// ReadOnly refuses every change.
	ReadOnly bool
	// Size bounds a blob, and Quota all blobs of the bucket, in bytes.
	Size, Quota int64
}

// Limits of what a blob grant may ask for, and what it gets when it does not ask.
const (
	MaxBlobSize, DefaultBlobSize   = 64 << 20, 8 << 20 // bytes
	MaxBlobQuota, DefaultBlobQuota = 64 << 30, 1 << 30 // bytes
)

// blobGrant reads a grant of kind blob.
func (t *table) blobGrant(g *Grant) bool {
	b := &BlobGrant{Bucket: t.bucketName("blob"), Size: DefaultBlobSize, Quota: DefaultBlobQuota}
	t.truth("read_only", &b.ReadOnly)
	t.size("size", &b.Size, 1, MaxBlobSize)
	t.size("quota", &b.Quota, 1, MaxBlobQuota)
	g.Blob = b
	return true
}
