// Package secretgrant is the kind of grant that reveals a secret to a function. It is the only one that does: with every other kind
// the server applies a secret outside the sandbox, and the function never has it.
//
// A value is given for the time of a lease: the function asks again after that, and gets what is in force then. A lease cannot
// take back what was given, but no value outlives the invocation, for the cell's memory does not.
//
// Caller: server, which registers the kind.
package secretgrant

import (
	"context"
	"encoding/base64"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// OpValue is the one operation.
const OpValue = "value"

// Revealer reveals secrets; secret.Store does.
type Revealer interface {
	Reveal(ctx context.Context, ns ident.Namespace, ref string, use grant.Use) (value []byte, number int, err error)
}

// Kind opens doors to secrets.
type Kind struct{ Secrets Revealer }

// Open implements grant.Kind.
func (k Kind) Open(_ context.Context, o grant.Opening) (grant.Door, error) {
	if o.Grant.Secret == nil {
		return nil, problem.New(problem.Internal, "internal", "internal error")
	}
	return &door{secrets: k.Secrets, ns: o.Namespace, grant: *o.Grant.Secret}, nil
}

type door struct {
	secrets Revealer
	ns      ident.Namespace
	grant   manifest.SecretGrant
}

// answer is what the function gets: the value as a text, or in base64 when it is none.
type answer struct {
	Value   string    `json:"value,omitempty"`
	Base64  string    `json:"base64,omitempty"`
	Version int       `json:"version,omitempty"`
	Expires time.Time `json:"expires"`
}

// Do implements grant.Door.
func (d *door) Do(ctx context.Context, call *grant.Call) (grant.Reply, error) {
	if call.Op != OpValue {
		return grant.Reply{}, unknownOp()
	}
	value, number, err := d.secrets.Reveal(ctx, d.ns, d.grant.Ref.String(), grant.Use{Caller: call.Caller})
	if err != nil {
		return grant.Reply{}, err
	}
	defer clear(value)
	a := answer{Version: number, Expires: time.Now().UTC().Add(d.grant.Lease)}
	if utf8.Valid(value) {
		a.Value = string(value)
	} else {
		a.Base64 = base64.StdEncoding.EncodeToString(value)
	}
	text, err := json.Marshal(&a)
	return grant.Reply{JSON: text}, err
}

func unknownOp() error {
	return problem.New(problem.Invalid, "secret.invalid", "a grant of a secret has the operation %s only", OpValue)
}

// Close implements grant.Door.
func (d *door) Close() error { return nil }
