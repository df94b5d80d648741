package deploy_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"sallyport/api"
	"sallyport/internal/deploy"
	"sallyport/internal/grant"
	"sallyport/internal/manifest"
	"sallyport/internal/problem"
)

// checks is a kind of grants that notes what it is asked to check.
type checks struct {
	mu     sync.Mutex
	asked  []string // the functions
	others int
	answer grant.Checked
	// begun, when set, has a word for each check that waits until release is closed.
	begun   chan struct{}
	release chan struct{}
}

func (c *checks) Open(context.Context, grant.Opening) (grant.Door, error) {
	return nil, errors.New("not in this test")
}

func (c *checks) Check(_ context.Context, o grant.Opening, others []manifest.Grant) grant.Checked {
	if c.begun != nil {
		c.begun <- struct{}{}
		<-c.release
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked, c.others = append(c.asked, string(o.Function)+"/"+o.Name), len(others)
	return c.answer
}

// take returns what was asked since the last call.
func (c *checks) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.asked
	c.asked = nil
	slices.Sort(out)
	return out
}

const (
	sqlGrant = "[functions.pay.grants.db]\nsql = \"secret:dsn\"\nqueries.a = \"select 1 as n from orders\"\n"
	sqlWider = sqlGrant + "queries.b = \"select 2 as n from orders\"\n"
)

// TestCheckedAtApply: databases are asked about grants that are new or changed, in a dry run about all, and only once whoever applies was found to
// have them.
func TestCheckedAtApply(t *testing.T) {
	t.Parallel()
	w, kind := newWorld(), &checks{}
	w.kinds = grant.Registry{manifest.KindSQL: kind}
	d := w.open(t)
	may := func(err error) deploy.Consent {
		return func(deploy.Change) error { return err }
	}
	denied := problem.New(problem.Denied, "access.grant_exceeds_deployer", "no")
	apply := func(b *api.Bundle, dry bool, consent deploy.Consent) (*api.Plan, error) {
		return d.Apply(t.Context(), "token:dev", "default", b, dry, consent)
	}
	wantAsked := func(what string, want ...string) {
		t.Helper()
		if got := kind.take(); !slices.Equal(got, want) {
			t.Errorf("%s: asked about %q, want %q", what, got, want)
		}
	}
	_, err := apply(payer(1, sqlGrant), true, may(denied))
	wantCode(t, err, "access.grant_exceeds_deployer")
	wantAsked("who may not")

	kind.answer = grant.Checked{Faults: []grant.CheckFault{{Key: []string{"queries", "a"}, Statement: "select 1 as n from orders", Offset: 19, Detail: "no orders"}}}
	for _, dry := range []bool{true, false} {
		_, err = apply(payer(1, sqlGrant), dry, may(nil))
		wantCode(t, err, "deploy.statements_refused")
		if f := problem.From(err).Faults; len(f) != 1 || f[0].File != "app.toml" || f[0].Line != 6 || f[0].Column != 33 || f[0].Length != 6 || f[0].Detail != "no orders" {
			t.Errorf("faults = %+v", f)
		}
		wantAsked("faults", "pay/db")
	}
	if len(d.State("default").Functions) != 0 {
		t.Error("an app with refused statements is active")
	}

	kind.answer = grant.Checked{Unchecked: problem.New(problem.Unavailable, "grant.sql_unreachable", "no answer").WithHint("start it")}
	plan, err := apply(payer(1, sqlGrant), false, may(nil))
	if err != nil || !plan.Applied || len(plan.Unchecked) != 1 || plan.Unchecked[0] != (api.Unchecked{Function: "pay", Grant: "db", Code: "grant.sql_unreachable", Detail: "no answer", Hint: "start it"}) {
		t.Errorf("plan = %+v, %v; want the app active and one grant unchecked", plan, err)
	}
	wantAsked("no answer", "pay/db")
	kind.answer = grant.Checked{}

	if _, err = apply(payer(1, sqlGrant), false, may(nil)); err != nil {
		t.Error(err)
	}
	wantAsked("nothing changes")
	if _, err = apply(payer(1, sqlGrant), true, may(nil)); err != nil {
		t.Error(err)
	}
	wantAsked("a dry run", "pay/db")
	plan, err = apply(payer(1, sqlGrant), true, may(denied))
	if err != nil || len(plan.Unchecked) != 1 || plan.Unchecked[0].Code != "access.grant_exceeds_deployer" {
		t.Errorf("plan = %+v, %v; want that it was not checked", plan, err)
	}
	wantAsked("a dry run of who may not use what stays")

	// What somebody else has to approve is not connected to before that.
	w.approvals = true
	plan, err = apply(payer(1, sqlWider), false, may(nil))
	if err != nil || plan.Approval == nil || len(plan.Unchecked) != 1 || plan.Unchecked[0].Code != "deploy.check_unapproved" {
		t.Fatalf("plan = %+v, %v; want that it waits, unchecked", plan, err)
	}
	wantAsked("not approved")
	kind.answer = grant.Checked{Faults: []grant.CheckFault{{Key: []string{"queries", "b"}, Detail: "no orders"}}}
	wantCode(t, approve(t, d, plan.Approval), "deploy.statements_refused")
	wantAsked("refused when it is approved", "pay/db")
	kind.answer = grant.Checked{}
	if err := approve(t, d, plan.Approval); err != nil {
		t.Error(err)
	}
	wantAsked("approved", "pay/db")
}

// TestDatabasesHoldNobodyUp: while databases are waited for, by who applies and by who approves, others apply and decide. What was asked for a revision that
// is not the next any more is asked again, and an approval is carried out once.
func TestDatabasesHoldNobodyUp(t *testing.T) {
	t.Parallel()
	w, kind := newWorld(), &checks{}
	w.kinds = grant.Registry{manifest.KindSQL: kind}
	d := w.open(t)
	applied(t, d, payer(1, sqlGrant))
	w.approvals = true
	waiting := held(t, d, payer(1, sqlWider))
	w.approvals = false
	kind.take()
	kind.begun, kind.release = make(chan struct{}, 8), make(chan struct{})

	codes := make(chan string, 3)
	code := func(err error) {
		if err == nil {
			codes <- ""
			return
		}
		codes <- problem.From(err).Code
	}
	var slow sync.WaitGroup
	for range 2 {
		slow.Go(func() { code(approve(t, d, waiting)) })
	}
	<-kind.begun
	<-kind.begun
	applied(t, d, app(quickApp, 1))
	if _, err := d.SetPaused(t.Context(), "default", "all", true); err != nil {
		t.Errorf("SetPaused = %v", err)
	}
	close(kind.release)
	slow.Wait()
	got := []string{<-codes, <-codes}
	slices.Sort(got)
	if want := []string{"", "approval.decided"}; !slices.Equal(got, want) {
		t.Errorf("two approvals ended with %q, want %q", got, want)
	}
	if f := d.State("default").Functions["pay"]; f == nil || len(f.Grants["db"].SQL.Queries) != 2 {
		t.Errorf("active is %+v, want the two statements", f)
	}

	kind.take()
	kind.release = make(chan struct{})
	for variant := range 2 { // two revisions of one app: the later asks again
		slow.Go(func() {
			_, err := d.Apply(t.Context(), "token:dev", "default", payer(byte(2+variant), sqlGrant), false, nil)
			code(err)
		})
	}
	<-kind.begun
	<-kind.begun
	close(kind.release)
	slow.Wait()
	if got := []string{<-codes, <-codes}; !slices.Equal(got, []string{"", ""}) {
		t.Errorf("two revisions ended with %q", got)
	}
	if got, want := kind.take(), []string{"pay/db", "pay/db", "pay/db"}; !slices.Equal(got, want) {
		t.Errorf("asked about %q, want %q", got, want)
	}
}
