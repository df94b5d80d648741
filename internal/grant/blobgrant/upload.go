package blobgrant

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"sync"
	"time"

	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

const (
	// maxUploads bounds the uploads of one grant that are not committed, and maxUploadsEach those of one attempt at an event.
	maxUploads, maxUploadsEach = 64, 8
	// uploadIdle is how long an upload waits for more before it is given up: longer than any invocation lasts that could go on with it.
	uploadIdle = 6 * time.Minute
)

// owner is the attempt that an upload belongs to.
type owner struct {
	position ident.Position
	attempt  int
}

func ownerOf(c *grant.Caller) owner {
	if c.Event == nil {
		return owner{attempt: c.Attempt}
	}
	return owner{c.Event.Position, c.Attempt}
}

// terms are what content is stored under.
type terms struct {
	name    string
	version *uint64
	digest  *digest
	expires time.Time
}

// upload is content that is not under a name yet.
type upload struct {
	id    fileID
	door  *door
	owner owner
	terms terms
	idle  *time.Timer

	mu       sync.Mutex // guards what follows; held while the disk is used
	w        *writer    // nil once it has ended
	reserved int64      // of the bucket's quota
}

// open begins an upload.
func (d *door) open(ctx context.Context, of owner, t terms) (*upload, error) {
	u := &upload{door: d, owner: of, terms: t}
	if _, err := rand.Read(u.id[:]); err != nil {
		return nil, err
	}
	if err := d.register(u); err != nil {
		return nil, err
	}
	if err := u.begin(ctx); err != nil {
		u.abort()
		return nil, err
	}
	return u, nil
}

// register finds a place for an upload.
func (d *door) register(u *upload) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	mine := 0
	for _, other := range d.uploads {
		if other.owner == u.owner {
			mine++
		}
	}
	if mine >= maxUploadsEach || len(d.uploads) >= maxUploads {
		return problem.New(problem.Exhausted, "grant.blob_uploads", "%d uploads are open, of which %d belong to this attempt: no more may be", len(d.uploads), mine).
			WithHint("commit or abort uploads before others are opened").WithRetryAfter(time.Second)
	}
	d.uploads[u.id] = u
	return nil
}

func (u *upload) begin(ctx context.Context) error {
	b := u.door.bucket
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := b.begin(ctx, u.id, &u.terms); err != nil {
		return err
	}
	done, err := u.reserve(ctx, objectCost)
	if err != nil {
		return err
	}
	defer done()
	u.w, err = newWriter(b.path(u.id), b.sealer, b.place(u.id), b.count)
	if err == nil {
		b.count(objectCost)
	}
	u.idle = time.AfterFunc(uploadIdle, u.abort)
	return err
}

// reserve takes n bytes of the quotas; done is called when they were written, or were not. u.mu is held.
func (u *upload) reserve(ctx context.Context, n int64) (done func(), err error) {
	b := u.door.bucket
	if err := b.kind.cfg.Space(); err != nil {
		return nil, err
	}
	if err := b.reserve(ctx, n, u.door.grant.Quota); err != nil {
		return nil, err
	}
	if done, err = b.kind.cfg.Admit(ctx, b.ns, n); err != nil {
		b.unreserve(n)
		return nil, err
	}
	u.reserved += n
	return done, nil
}

// write adds content behind the offset bytes that are there. When it fails for what was asked, nothing changes; else the upload ends.
func (u *upload) write(ctx context.Context, offset int64, p []byte) (int64, error) {
	u.mu.Lock()
	if u.w == nil {
		u.mu.Unlock()
		return 0, noUpload()
	}
	size, err := u.append(ctx, offset, p)
	u.mu.Unlock()
	if _, asked := errors.AsType[*problem.Error](err); err != nil && !asked {
		u.abort()
	}
	return size, err
}

func (u *upload) append(ctx context.Context, offset int64, p []byte) (int64, error) {
	most := u.door.grant.ObjectSize
	switch size := u.w.size; {
	case offset != size:
		return 0, outOfOrder(size, offset)
	case int64(len(p)) > most-size:
		return 0, tooLarge(most)
	}
	done, err := u.reserve(ctx, int64(len(p)))
	if err != nil {
		return 0, err
	}
	defer done()
	if err := u.w.write(p); err != nil {
		// What is on the disk is not known: no problem of the caller's, whatever it is.
		return 0, u.broken(err)
	}
	u.idle.Reset(uploadIdle)
	return u.w.size, nil
}

// broken ends an upload whose file cannot be used. u.mu is held.
func (u *upload) broken(err error) error {
	u.end(false)
	return err
}

// commit puts the content under its name.
func (u *upload) commit(ctx context.Context) (*object, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.w == nil {
		return nil, noUpload()
	}
	size := u.w.size
	sum, err := u.w.finish()
	if err != nil {
		return nil, u.broken(err)
	}
	if want := u.terms.digest; want != nil && *want != sum {
		return nil, u.broken(otherDigest(sum))
	}
	o := &object{name: u.terms.name, expires: u.terms.expires, content: &content{id: u.id, digest: sum, size: size}}
	kept, err := u.door.bucket.commit(ctx, u.id, o, u.terms.version)
	u.end(kept)
	return o, err
}

// abort ends an upload, and nothing of it is left. It may have ended before.
func (u *upload) abort() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.end(false)
}

// end ends an upload that was registered. u.mu is held.
func (u *upload) end(keep bool) {
	d := u.door
	d.mu.Lock()
	_, there := d.uploads[u.id]
	delete(d.uploads, u.id)
	d.mu.Unlock()
	if !there {
		return
	}
	if u.idle != nil {
		u.idle.Stop()
	}
	if u.w != nil {
		u.w.drop()
		if err := u.w.f.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
			d.kind.cfg.Logger.Error("close the file of an upload", "bucket", d.bucket.label, "error", err)
		}
		u.w = nil
	}
	d.bucket.end(u.id, u.reserved, keep)
}

// find returns an upload of the same attempt: no handle of another's is one.
func (d *door) find(of owner, handle string) (*upload, error) {
	id, ok := parseFileID(handle)
	d.mu.Lock()
	defer d.mu.Unlock()
	if u := d.uploads[id]; ok && u != nil && u.owner == of {
		return u, nil
	}
	return nil, noUpload()
}

func noUpload() error {
	return problem.New(problem.NotFound, "grant.blob_no_upload", "there is no such upload, or it has ended").
		WithHint("an upload belongs to the attempt at an event that opened it, and ends when it is committed, aborted or fails")
}

func tooLarge(most int64) error {
	return problem.New(problem.TooLarge, "grant.blob_too_large", "the object would be larger than the %d bytes that the grant takes", most).
		WithHint("raise object_size of the grant")
}

func outOfOrder(size, offset int64) error {
	return problem.New(problem.Conflict, "grant.blob_offset", "the upload has %d bytes, so that nothing is written at %d", size, offset).
		WithHint("write the parts of an object one after the other")
}

func otherDigest(sum digest) error {
	return problem.New(problem.Conflict, "grant.blob_digest", "the content has the digest %s, and not the one that was named", sum).WithHint("send it again")
}
