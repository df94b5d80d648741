package access

import (
	"cmp"
	"context"
	"encoding/hex"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/internal/ident"
	"sallyport/internal/policy"
	"sallyport/internal/store"
)

const (
	// DecisionRetention is how long decisions are kept.
	DecisionRetention = 30 * 24 * time.Hour
	// maxDecisions bounds the decisions of a day that are told apart: whoever may ask can make up names, and all are in
	// memory, some 500 bytes each. Those beyond are counted together.
	maxDecisions = 5_000
	// identityBytes of the digest of a principal tell its states apart: a token's role does not change, but the grants
	// of a function do.
	identityBytes = 8
)

// Decisions is the record of what the guard decided: each question of a day once, with how often it was asked.
// It is complete but for the last minute before a crash and for what is beyond the bound of a day. It is safe
// for concurrent use.
type Decisions struct {
	sums  *store.Sums[decisionKey, decisionSum]
	known atomic.Pointer[answers]
}

// decisionKey tells decisions of a day apart.
type decisionKey struct {
	Principal ident.PrincipalID `json:"p"`
	Identity  string            `json:"i"`
	Action    policy.Action     `json:"a"`
	Kind      policy.Kind       `json:"k"`
	Namespace ident.Namespace   `json:"n"`
	Name      string            `json:"r"`
	Allowed   bool              `json:"y"`
}

// decisionSum is what is kept of a decision.
type decisionSum struct {
	Count    int64            `json:"c"`
	Last     int64            `json:"l"` // Unix seconds
	Policies []string         `json:"d,omitempty"`
	As       policy.Principal `json:"s"`
}

// Decided is one question, its answer, and how often it was asked in a period.
type Decided struct {
	// As is the principal as it was then.
	As       policy.Principal
	Action   policy.Action
	Resource policy.Resource
	policy.Decision
	Count int64
	Last  time.Time
}

// OpenDecisions returns the record in bucket, and has what changes stored until Close.
func OpenDecisions(ctx context.Context, bucket store.SumsBucket, log *slog.Logger) (*Decisions, error) {
	d := &Decisions{}
	cfg := store.SumsConfig[decisionKey]{
		What: "decisions", Span: 24 * time.Hour, Every: time.Minute, Retention: DecisionRetention, MaxKeys: maxDecisions, Before: d.collect, Other: decisionKey{Principal: "(other)"},
	}
	var err error
	d.sums, err = store.OpenSums[decisionKey, decisionSum](ctx, cfg, bucket, log)
	return d, err
}

// RecordIn has what g decides from now on recorded. It is called once, before g is used.
func (g *Guard) RecordIn(d *Decisions) {
	g.known.forgotten, g.record = d.add, d
	d.known.Store(&g.known)
}

// collect counts what was asked since it was called last.
func (d *Decisions) collect() {
	if known := d.known.Load(); known != nil {
		known.each(d.add)
	}
}

// add counts what was asked since then, of some answers.
func (d *Decisions) add(answers map[question]*answer) {
	now := time.Now()
	for q, a := range answers {
		n := a.asked.Swap(0)
		if n == 0 {
			continue
		}
		k := decisionKey{
			Principal: a.as.ID, Identity: hex.EncodeToString(q.principal[:identityBytes]), Action: q.action,
			Kind: q.resource.Kind, Namespace: q.resource.Namespace, Name: q.resource.Name, Allowed: a.decision.Allowed,
		}
		d.sums.Add(k, now, func(sum *decisionSum) {
			sum.Count += n
			sum.Last = now.Unix()
			sum.Policies, sum.As = a.decision.Policies, a.as
		})
	}
}

// DecisionQuery selects decisions: those that were asked last in the period. How often is counted by days.
type DecisionQuery struct {
	Namespace    ident.Namespace
	Since, Until time.Time // a zero Until is now
	Principal    ident.PrincipalID
	Denied       bool // only those that were denied
}

// List returns what was decided about resources of a namespace, what was asked last first.
func (d *Decisions) List(q DecisionQuery) []Decided {
	d.collect()
	found := map[decisionKey]*Decided{}
	d.sums.Each(q.Since, q.Until, func(_ time.Time, k decisionKey, sum *decisionSum) {
		if sum.Last < q.Since.Unix() || k.Namespace != q.Namespace || q.Principal != "" && k.Principal != q.Principal || q.Denied && k.Allowed {
			return
		}
		one := found[k]
		if one == nil {
			one = &Decided{Action: k.Action, Resource: policy.Resource{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name}}
			found[k] = one
		}
		one.Count += sum.Count
		if at := time.Unix(sum.Last, 0).UTC(); !at.Before(one.Last) {
			one.Last, one.As = at, sum.As
			one.Decision = policy.Decision{Allowed: k.Allowed, Policies: sum.Policies}
		}
	})
	out := make([]Decided, 0, len(found))
	for _, one := range found {
		out = append(out, *one)
	}
	slices.SortFunc(out, func(a, b Decided) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.As.ID, b.As.ID), cmp.Compare(a.Action, b.Action), cmp.Compare(a.Resource.Name, b.Resource.Name))
	})
	return out
}

// RemoveNamespace forgets what was decided about a namespace, and about the functions of it.
func (d *Decisions) RemoveNamespace(ctx context.Context, ns ident.Namespace) error {
	d.collect()
	d.sums.Remove(func(k decisionKey) bool {
		return k.Namespace == ns || strings.HasPrefix(string(k.Principal), "function:"+string(ns)+"/")
	})
	return d.sums.Store(ctx)
}

// Close stores what changed. It is idempotent.
func (d *Decisions) Close() error { return d.sums.Close() }
