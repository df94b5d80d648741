// Package identitygrant is the kind of grant that tells others which function it is: each use gets a new identity token,
// for the audience that the manifest names and no other.
//
// The function supplies nothing: who it is, the server knows. Callers: server (the kind), the package grant (its doors).
package identitygrant

import (
	"context"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// OpToken is the one thing that an identity grant does.
const OpToken = "token"

// Mint makes a token that says that its bearer is a revision of a function, for one audience.
type Mint func(ctx context.Context, ns ident.Namespace, fn ident.FunctionName, revision int, audience string) (token string, expires time.Time, err error)

// Kind opens doors to identity tokens.
type Kind struct{ Mint Mint }

// Open makes the door of an identity grant.
func (k Kind) Open(_ context.Context, o grant.Opening) (grant.Door, error) {
	g := o.Grant.Identity
	if g == nil || k.Mint == nil {
		return nil, fmt.Errorf("grant %q is not of kind identity, or nothing makes tokens", o.Name)
	}
	return &door{mint: k.Mint, ns: o.Namespace, function: o.Function, revision: o.Revision, audience: g.Audience}, nil
}

// door is of one revision of one function: whose token it gets is not asked.
type door struct {
	mint     Mint
	ns       ident.Namespace
	function ident.FunctionName
	revision int
	audience string
}

// answer is what the function gets.
type answer struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// Do makes a token.
func (d *door) Do(ctx context.Context, call *grant.Call) (grant.Reply, error) {
	if err := check(call); err != nil {
		return grant.Reply{}, err
	}
	token, expires, err := d.mint(ctx, d.ns, d.function, d.revision, d.audience)
	if err != nil {
		return grant.Reply{}, err
	}
	text, err := json.Marshal(&answer{Token: token, Expires: expires})
	if err != nil {
		return grant.Reply{}, fmt.Errorf("encode a token: %w", err)
	}
	return grant.Reply{JSON: text}, nil
}

// Rehearse implements grant.Rehearser: the function gets a text that nobody takes for a token.
func (d *door) Rehearse(ctx context.Context, call *grant.Call, s grant.Stand) (grant.Reply, bool, error) {
	if err := check(call); err != nil {
		return grant.Reply{}, false, err
	}
	const life = 5 * time.Minute
	text, err := json.Marshal(&answer{Token: "stand-in-for-a-token", Expires: time.Now().UTC().Add(life)})
	if err != nil {
		return grant.Reply{}, false, fmt.Errorf("encode a stand-in: %w", err)
	}
	sent, err := json.Marshal(map[string]string{"audience": d.audience})
	if err != nil {
		return grant.Reply{}, false, fmt.Errorf("encode a use: %w", err)
	}
	reply, carryOut, err := s.Answer(ctx, call, grant.Planned{Sent: sent, Effect: true, Neutral: &grant.Reply{JSON: text}})
	if carryOut {
		return grant.Reply{}, true, nil
	}
	reply, err = grant.Typed[answer](call, reply, err, "{token, expires}")
	return reply, false, err
}

func check(call *grant.Call) error {
	if call.Op != OpToken {
		return problem.New(problem.Invalid, "grant.identity_request", "an identity grant has %q and nothing else", OpToken)
	}
	if len(call.Body) > 0 || len(call.Request) > 0 && string(call.Request) != "{}" && string(call.Request) != "null" {
		return problem.New(problem.Invalid, "grant.identity_request", "a token is asked for without anything: the manifest says for whom it is")
	}
	return nil
}

// Close does nothing: the door holds nothing open.
func (d *door) Close() error { return nil }
