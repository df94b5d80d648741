package secretgrant

import (
	"context"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/internal/grant"
)

// Rehearse implements grant.Rehearser: the store is asked as for real, which may refuse it, and what it answers is dropped.
// The function gets a text that is no secret.
func (d *door) Rehearse(ctx context.Context, call *grant.Call, s grant.Stand) (grant.Reply, bool, error) {
	if call.Op != OpValue {
		return grant.Reply{}, false, unknownOp()
	}
	name := d.grant.Ref.String()
	value, _, err := d.secrets.Reveal(ctx, d.ns, name, grant.Use{Caller: call.Caller})
	if err != nil {
		return grant.Reply{}, false, err
	}
	clear(value)
	neutral, err := json.Marshal(&answer{Value: "stand-in-for-" + d.grant.Ref.Secret(), Version: 1, Expires: time.Now().UTC().Add(d.grant.Lease)})
	if err != nil {
		return grant.Reply{}, false, err
	}
	sent, err := json.Marshal(map[string]string{"secret": name})
	if err != nil {
		return grant.Reply{}, false, err
	}
	reply, carryOut, err := s.Answer(ctx, call, grant.Planned{Sent: sent, Effect: true, Neutral: &grant.Reply{JSON: neutral}})
	if carryOut {
		return grant.Reply{}, true, nil
	}
	reply, err = grant.Typed[answer](call, reply, err, `{value = "a text"}`)
	return reply, false, err
}
