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
	// Reaches is what a grant reached, which its name does not say: another revision may have another one of the name.
	Reaches string `json:"t,omitempty"`
	Grant   string `json:"g,omitempty"`
	Allowed bool   `json:"y"`
	// DryRun are the perimeters in dry-run that would have denied it, with spaces between: it is a part of the key, so that
	// how often is known of just those.
	DryRun string `json:"w,omitempty"`
}

// decisionSum is what is kept of a decision.
type decisionSum struct {
	Count    int64            `json:"c"`
	Last     int64            `json:"l"` // Unix seconds
	Policies []string         `json:"d,omitempty"`
	Bridges  []string         `json:"b,omitempty"`
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
		d.count(&q, a, n, now)
	}
}

func (d *Decisions) count(q *question, a *answer, n int64, now time.Time) {
	k := decisionKey{
		Principal: a.as.ID, Identity: hex.EncodeToString(q.principal[:identityBytes]), Action: q.action,
		Kind: q.resource.Kind, Namespace: q.resource.Namespace, Name: q.resource.Name, Reaches: q.resource.Reaches, Grant: q.resource.Grant, Allowed: a.decision.Allowed,
		DryRun: strings.Join(a.decision.DryRun, " "),
	}
	d.sums.Add(k, now, func(sum *decisionSum) {
		sum.Count += n
		sum.Last = now.Unix()
		sum.Policies, sum.Bridges, sum.As = a.decision.Policies, a.decision.Bridges, a.as
	})
}

// crossed counts what perimeters alone were asked, when they have something to say about it: that nothing was in the way
// of a delivery or a line is no news.
func (d *Decisions) crossed(q *policy.Request, decision policy.Decision) {
	if d == nil || decision.Allowed && len(decision.Bridges)+len(decision.DryRun) == 0 {
		return
	}
	asked := question{action: q.Action, resource: q.Resource}
	asked.resource.Name = strings.Clone(q.Resource.Name) // it may be a part of a body, which must not stay for it
	d.count(&asked, &answer{as: q.Principal, decision: decision}, 1, time.Now())
}

// DecisionQuery selects decisions: those that were asked last in the period. How often is counted by days.
type DecisionQuery struct {
	Namespace    ident.Namespace
	Since, Until time.Time // a zero Until is now
	Principal    ident.PrincipalID
	Denied       bool // only those that were denied
	// Perimeter selects those that the perimeter of this id denied, or in dry-run would have.
	Perimeter string
}

// List returns what was decided about resources of a namespace, what was asked last first.
func (d *Decisions) List(q DecisionQuery) []Decided {
	d.collect()
	found := map[decisionKey]*Decided{}
	d.sums.Each(q.Since, q.Until, func(_ time.Time, k decisionKey, sum *decisionSum) {
		if sum.Last < q.Since.Unix() || k.Namespace != q.Namespace || q.Principal != "" && k.Principal != q.Principal || q.Denied && k.Allowed ||
			q.Perimeter != "" && !slices.Contains(sum.Policies, q.Perimeter) && !slices.Contains(strings.Fields(k.DryRun), q.Perimeter) {
			return
		}
		one := found[k]
		if one == nil {
			one = &Decided{Action: k.Action, Resource: policy.Resource{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name, Reaches: k.Reaches, Grant: k.Grant}}
			found[k] = one
		}
		one.Count += sum.Count
		if at := time.Unix(sum.Last, 0).UTC(); !at.Before(one.Last) {
			one.Last, one.As = at, sum.As
			one.Decision = policy.Decision{Allowed: k.Allowed, Policies: sum.Policies, Bridges: sum.Bridges, DryRun: strings.Fields(k.DryRun)}
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
