package blobgrant

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"time"
)

// digest is the SHA-256 of content.
type digest [32]byte

// digestScheme begins the text of a digest.
const digestScheme = "sha256:"

func (d digest) String() string { return digestScheme + hex.EncodeToString(d[:]) }

// parseDigest reads the text of a digest.
func parseDigest(s string) (d digest, ok bool) {
	text, found := strings.CutPrefix(s, digestScheme)
	b, err := hex.DecodeString(text)
	if !found || err != nil || len(b) != len(d) {
		return d, false
	}
	return digest(b), true
}

// content is what objects refer to: once in a bucket, however many do.
type content struct {
	id     fileID
	digest digest
	size   int64
	refs   int // guarded by bucket.mu
}

// object is content under a name. It is not changed once it is in the index.
type object struct {
	name    string
	version uint64
	expires time.Time // zero is never
	content *content
}

// cost is what the object takes of the quota: as much as if no other had its content.
func (o *object) cost() int64 { return o.content.size + objectCost }

// Over implements expiring.Entry.
func (o *object) Over(now time.Time) bool { return !o.expires.IsZero() && !now.Before(o.expires) }

var errObject = errors.New("malformed object")

// objectHead is the length of the stored form without the name.
const objectHead = 1 + 8 + 8 + 8 + 32 + 16

// objectForm is the first byte of the stored form.
const objectForm = 1

// append appends the stored form.
func (o *object) append(dst []byte) []byte {
	expires := int64(math.MaxInt64)
	if !o.expires.IsZero() {
		expires = o.expires.UnixMicro()
	}
	dst = append(dst, objectForm)
	dst = binary.BigEndian.AppendUint64(dst, o.version)
	dst = binary.BigEndian.AppendUint64(dst, uint64(expires))
	dst = binary.BigEndian.AppendUint64(dst, uint64(o.content.size))
	dst = append(append(dst, o.content.digest[:]...), o.content.id[:]...)
	return append(dst, o.name...)
}

// parseObject reads the stored form. Its content is one of its own.
func parseObject(b []byte) (*object, error) {
	if len(b) <= objectHead || len(b) > objectHead+maxName || b[0] != objectForm {
		return nil, errObject
	}
	o := &object{version: binary.BigEndian.Uint64(b[1:]), content: &content{size: int64(binary.BigEndian.Uint64(b[17:]))}}
	if micros := int64(binary.BigEndian.Uint64(b[9:])); micros != math.MaxInt64 {
		o.expires = time.UnixMicro(micros)
	}
	if o.version == 0 || o.content.size < 0 || o.content.size > maxObject {
		return nil, errObject
	}
	copy(o.content.digest[:], b[25:])
	copy(o.content.id[:], b[57:])
	o.name = string(b[objectHead:])
	return o, nil
}
