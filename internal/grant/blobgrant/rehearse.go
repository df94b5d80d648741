package blobgrant

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"hash"

	"sallyport/internal/grant"
)

// rehearsal is an upload that goes nowhere: what is written is counted, and its digest is made.
type rehearsal struct {
	owner owner
	terms terms
	sum   hash.Hash
	size  int64
}

func newRehearsal(of owner, t terms) *rehearsal {
	return &rehearsal{owner: of, terms: t, sum: sha256.New()}
}

// write is upload.write.
func (u *rehearsal) write(most, offset int64, p []byte) error {
	if offset != u.size {
		return outOfOrder(u.size, offset)
	}
	if int64(len(p)) > most-u.size {
		return tooLarge(most)
	}
	u.sum.Write(p) // never fails
	u.size += int64(len(p))
	return nil
}

// commit is upload.commit, which nothing is in the way of.
func (u *rehearsal) commit() (grant.Reply, error) {
	sum := digest(u.sum.Sum(nil))
	if want := u.terms.digest; want != nil && *want != sum {
		return grant.Reply{}, otherDigest(sum)
	}
	return answer(describe(&object{version: 1, expires: u.terms.expires, content: &content{digest: sum, size: u.size}}, ""))
}

// Rehearse implements grant.Rehearser. Without another answer a bucket is empty, and every change succeeds.
func (d *door) Rehearse(ctx context.Context, call *grant.Call, s grant.Stand) (grant.Reply, bool, error) {
	neutral, err := d.neutral(call)
	if err != nil {
		return grant.Reply{}, false, err
	}
	reply, carryOut, err := s.Answer(ctx, call, grant.Planned{Sent: grant.WithBody(call.Request, call.Body), Effect: changes(call.Op), Neutral: &neutral})
	if carryOut {
		return grant.Reply{}, true, nil
	}
	switch call.Op {
	case OpList:
		reply, err = grant.Typed[listAnswer](call, reply, err, "{objects = [{name, digest, size, version}]}")
	case OpDelete:
		reply, err = grant.Typed[deleteAnswer](call, reply, err, "{deleted}")
	case OpOpen:
		reply, err = grant.Typed[openAnswer](call, reply, err, "{upload}")
	case OpWrite:
		reply, err = grant.Typed[writeAnswer](call, reply, err, "{size}")
	case OpAbort:
	default:
		reply, err = grant.Typed[*described](call, reply, err, "{digest, size, version}, or null for an object that is not there")
	}
	return reply, false, err
}

// neutral checks a use, and returns what it would come to in an empty bucket.
func (d *door) neutral(call *grant.Call) (grant.Reply, error) {
	r, err := d.parse(call)
	if err != nil {
		return grant.Reply{}, err
	}
	switch call.Op {
	case OpGet, OpStat, OpDelete:
		if _, err := d.name(r.Name); err != nil {
			return grant.Reply{}, err
		}
		if call.Op == OpDelete {
			return answer(deleteAnswer{true})
		}
		return grant.Reply{JSON: []byte("null")}, nil
	case OpList:
		if _, err := r.limit(); err != nil {
			return grant.Reply{}, err
		}
		return answer(listAnswer{Objects: []described{}})
	case OpPut:
		t, err := d.terms(r)
		if err != nil {
			return grant.Reply{}, err
		}
		u := newRehearsal(ownerOf(&call.Caller), t)
		if err := u.write(d.grant.ObjectSize, 0, call.Body); err != nil {
			return grant.Reply{}, err
		}
		return u.commit()
	}
	return d.rehearseUpload(r, call)
}

// rehearseUpload is neutral for the operations of uploads.
func (d *door) rehearseUpload(r *request, call *grant.Call) (grant.Reply, error) {
	of := ownerOf(&call.Caller)
	d.mu.Lock()
	defer d.mu.Unlock()
	if call.Op == OpOpen {
		t, err := d.terms(r)
		if err != nil {
			return grant.Reply{}, err
		}
		if len(d.rehearsed) >= maxUploads {
			clear(d.rehearsed) // those of tests before this one
		}
		var id fileID
		if _, err := rand.Read(id[:]); err != nil {
			return grant.Reply{}, err
		}
		d.rehearsed[id] = newRehearsal(of, t)
		return answer(openAnswer{id.String()})
	}
	id, ok := parseFileID(r.Upload)
	u := d.rehearsed[id]
	if !ok || u == nil || u.owner != of {
		return grant.Reply{}, noUpload()
	}
	if call.Op == OpWrite {
		if err := u.write(d.grant.ObjectSize, r.Offset, call.Body); err != nil {
			return grant.Reply{}, err
		}
		return answer(writeAnswer{u.size})
	}
	delete(d.rehearsed, id)
	if call.Op == OpAbort {
		return grant.Reply{JSON: []byte("null")}, nil
	}
	return u.commit()
}
