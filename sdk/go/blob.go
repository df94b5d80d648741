package guest

import (
	"errors"
	"io"
	"io/fs"
	"iter"
	"time"
)

// blobPart is how many bytes of an object go through the function at a time. It fits into a request of a grant whose limits are not changed.
const blobPart = 60 << 10

// Blob is a grant of kind blob: objects under names, which may be larger than the function's memory.
type Blob struct {
	c     *Context
	grant string
}

// Blob returns a grant of kind blob by its name.
func (c *Context) Blob(grant string) Blob { return Blob{c, grant} }

// BlobInfo says what an object is.
type BlobInfo struct {
	// Name is there in lists.
	Name string `json:"name"`
	// Digest is "sha256:" and 64 hexadecimal digits.
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	// Version is of this content of the name, and never used again.
	Version uint64 `json:"version"`
	// Expires is the zero time when the object stays.
	Expires time.Time `json:"expires"`
}

// BlobOptions say more about an object that is stored; the zero value says nothing.
type BlobOptions struct {
	// TTL is how long the object stays; 0 is as long as the grant says.
	TTL time.Duration
	// Version is that of the object to be replaced, 0 for none; nil replaces any.
	Version *uint64
	// Digest is what the content must have.
	Digest string
}

// blobWire is a request as the host reads it.
type blobWire struct {
	Name    string  `json:"name,omitempty"`
	TTL     float64 `json:"ttl,omitempty"`
	Version *uint64 `json:"version,omitempty"`
	Digest  string  `json:"digest,omitempty"`
	Offset  int64   `json:"offset,omitempty"`
	Upload  string  `json:"upload,omitempty"`
}

// Put stores what it reads under a name, whole or not at all.
func (b Blob) Put(name string, content io.Reader, o BlobOptions) (*BlobInfo, error) {
	part := make([]byte, blobPart)
	n, err := io.ReadFull(content, part)
	terms := blobWire{Name: name, TTL: o.TTL.Seconds(), Version: o.Version, Digest: o.Digest}
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return b.info("put", terms, part[:n])
	case err != nil:
		return nil, err
	}
	a, err := b.c.Call(b.grant, "open", terms, nil)
	if err != nil {
		return nil, err
	}
	var upload blobWire
	if err := a.Decode(&upload); err != nil {
		return nil, err
	}
	info, err := b.upload(upload, part, content)
	if err != nil {
		_, abortErr := b.c.Call(b.grant, "abort", upload, nil)
		if e := (*GrantError)(nil); errors.As(abortErr, &e) && e.Code == "grant.blob_no_upload" {
			abortErr = nil // it has ended already
		}
		return nil, errors.Join(err, abortErr)
	}
	return info, nil
}

// upload writes a part that was read, and then the rest.
func (b Blob) upload(upload blobWire, part []byte, rest io.Reader) (*BlobInfo, error) {
	at := upload
	for n := len(part); n > 0; {
		if _, err := b.c.Call(b.grant, "write", at, part[:n]); err != nil {
			return nil, err
		}
		at.Offset += int64(n)
		var err error
		if n, err = io.ReadFull(rest, part); err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return nil, err
		}
	}
	return b.info("commit", upload, nil)
}

// info asks for something whose answer is what an object is, nil for none.
func (b Blob) info(op string, w blobWire, body []byte) (*BlobInfo, error) {
	a, err := b.c.Call(b.grant, op, w, body)
	if err != nil {
		return nil, err
	}
	var info *BlobInfo
	return info, a.Decode(&info)
}

// Stat returns what an object is, and nil when there is none of the name.
func (b Blob) Stat(name string) (*BlobInfo, error) { return b.info("stat", blobWire{Name: name}, nil) }

// Get returns an object, whole in memory. The error is fs.ErrNotExist when there is none of the name.
func (b Blob) Get(name string) ([]byte, error) {
	r, err := b.Open(name)
	if err != nil {
		return nil, err
	}
	content := make([]byte, r.Info.Size)
	if _, err := io.ReadFull(r, content); err != nil {
		return nil, err
	}
	return content, nil
}

// Open returns a reader of an object of any size. The error is fs.ErrNotExist when there is none of the name.
func (b Blob) Open(name string) (*BlobReader, error) {
	r := &BlobReader{b: b, name: name}
	there, err := r.next()
	if err == nil && !there {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// BlobReader reads an object as it was when it was opened: once it is replaced, Read fails with grant.blob_changed.
type BlobReader struct {
	Info BlobInfo
	b    Blob
	name string
	read int64 // how much of the object was asked for
	part []byte
}

// next reads the next part, and reports whether the object is there.
func (r *BlobReader) next() (bool, error) {
	w := blobWire{Name: r.name, Offset: r.read}
	if r.read > 0 {
		w.Version = &r.Info.Version
	}
	a, err := r.b.c.Call(r.b.grant, "get", w, nil)
	if err != nil {
		return false, err
	}
	var info *BlobInfo
	if err := a.Decode(&info); err != nil || info == nil {
		return false, err
	}
	r.Info, r.part, r.read = *info, a.Body, r.read+int64(len(a.Body))
	return true, nil
}

// Read implements io.Reader.
func (r *BlobReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.part) == 0 {
		if r.read >= r.Info.Size {
			return 0, io.EOF
		}
		if _, err := r.next(); err != nil {
			return 0, err
		}
		if len(r.part) == 0 {
			return 0, io.ErrNoProgress
		}
	}
	n := copy(p, r.part)
	r.part = r.part[n:]
	return n, nil
}

// Delete deletes an object, and reports whether there was one.
func (b Blob) Delete(name string) (bool, error) { return remove(b.c, b.grant, blobWire{Name: name}) }

// List yields what objects there are whose names begin with a prefix, in order. An error ends it.
func (b Blob) List(prefix string) iter.Seq2[BlobInfo, error] {
	return pages(b.c, b.grant, prefix, func(a *Answer) ([]BlobInfo, string, error) {
		var r struct {
			Objects []BlobInfo `json:"objects"`
			After   string     `json:"after"`
		}
		err := a.Decode(&r)
		return r.Objects, r.After, err
	})
}
