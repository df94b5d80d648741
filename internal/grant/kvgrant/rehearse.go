package kvgrant

import (
	"context"

	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/grant"
)

// getAnswer is what a get gives, null when there is no value.
type getAnswer struct {
	Value   jsontext.Value `json:"value,omitzero"`
	Version uint64         `json:"version"`
	Expires string         `json:"expires,omitzero"`
}

// Rehearse implements grant.Rehearser. Without another answer a bucket is empty, and every change succeeds.
func (d *door) Rehearse(ctx context.Context, call *grant.Call, s grant.Stand) (grant.Reply, bool, error) {
	neutral, err := d.neutral(call)
	if err != nil {
		return grant.Reply{}, false, err
	}
	planned := grant.Planned{
		Sent: grant.WithBody(call.Request, call.Body), Effect: call.Op != OpGet && call.Op != OpList, Neutral: &neutral,
	}
	reply, carryOut, err := s.Answer(ctx, call, planned)
	if carryOut {
		return grant.Reply{}, true, nil
	}
	switch call.Op {
	case OpGet:
		reply, err = grant.Typed[*getAnswer](call, reply, err, "{value, version}, or null")
	case OpList:
		reply, err = grant.Typed[listAnswer](call, reply, err, "{keys = [{key, version, size}]}")
	case OpDelete:
		reply, err = grant.Typed[deleteAnswer](call, reply, err, "{deleted}")
	case OpIncrement:
		reply, err = grant.Typed[incrementAnswer](call, reply, err, "{value, version}")
	default:
		reply, err = grant.Typed[setAnswer](call, reply, err, "{set, version}")
	}
	return reply, false, err
}

// neutral checks a use, and returns what it would come to in an empty bucket.
func (d *door) neutral(call *grant.Call) (grant.Reply, error) {
	r, key, err := d.read(call)
	if err != nil {
		return grant.Reply{}, err
	}
	switch call.Op {
	case OpGet:
		return grant.Reply{JSON: []byte("null")}, nil
	case OpList:
		if _, err := r.limit(); err != nil {
			return grant.Reply{}, err
		}
		return answer(listAnswer{Keys: []listed{}})
	case OpDelete:
		return answer(deleteAnswer{true})
	case OpIncrement:
		if _, err := d.expiry(r.TTL); err != nil {
			return grant.Reply{}, err
		}
		return answer(incrementAnswer{r.by(), 1})
	}
	if _, err := d.entry(key, r, call); err != nil {
		return grant.Reply{}, err
	}
	return answer(setAnswer{true, 1})
}
