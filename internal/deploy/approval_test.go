package deploy_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"sallyport/api"
	"sallyport/internal/deploy"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// payer returns an app with one function that has grants, in TOML.
func payer(variant byte, grants string) *api.Bundle {
	return app("name = \"shop\"\n[functions.pay]\nsource = \"pay.wasm\"\n"+grants, variant)
}

const (
	noGrants  = ""
	oneType   = "[functions.pay.grants.out]\npublish = [\"order.paid\"]\n"
	twoTypes  = "[functions.pay.grants.out]\npublish = [\"order.paid\", \"order.lost\"]\n"
	kvDefault = "[functions.pay.grants.carts]\nkv = \"carts\"\n"
	kvSlower  = kvDefault + "limits = { rate = 5 }\n"
	kvLarger  = kvDefault + "quota = \"32MiB\"\n"
)

// held applies b as token:dev, which must wait for an approval, and returns that.
func held(t testing.TB, d *deploy.Deployer, b *api.Bundle) *api.Approval {
	t.Helper()
	plan, err := d.Apply(t.Context(), "token:dev", "default", b, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !plan.NeedsApproval || plan.Approval == nil || plan.Applied {
		t.Fatalf("the app does not wait: %+v", plan)
	}
	return plan.Approval
}

// applied applies b as token:dev, which must be active then.
func applied(t testing.TB, d *deploy.Deployer, b *api.Bundle) *api.Plan {
	t.Helper()
	plan, err := d.Apply(t.Context(), "token:dev", "default", b, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if plan.NeedsApproval || plan.Approval != nil || !plan.Applied {
		t.Fatalf("the app is not active: %+v", plan)
	}
	return plan
}

func approve(t testing.TB, d *deploy.Deployer, a *api.Approval) error {
	t.Helper()
	_, err := d.Approve(t.Context(), "user:ann", "default", a.ID, api.ApprovalRequest{Digest: a.Digest, Reason: "ticket 7"}, nil)
	return err
}

func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	if p, ok := errors.AsType[*problem.Error](err); !ok || p.Code != code {
		t.Errorf("error = %v, want %s", err, code)
	}
}

// stateOf returns the state of an approval.
func stateOf(t testing.TB, d *deploy.Deployer, id string) string {
	t.Helper()
	a, _, err := d.Approval("default", id)
	if err != nil {
		t.Fatal(err)
	}
	return a.State
}

func TestGainsNeedApproval(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, from, to string
		code           bool // the code changes
		want           bool
	}{
		{name: "new grant", from: noGrants, to: oneType, want: true},
		{name: "another type", from: oneType, to: twoTypes, want: true},
		{name: "one type less", from: twoTypes, to: oneType},
		{name: "no grant any more", from: oneType, to: noGrants},
		{name: "only code", from: oneType, to: oneType, code: true},
		{name: "lower limit", from: kvDefault, to: kvSlower},
		{name: "higher limit", from: kvSlower, to: kvDefault, want: true},
		{name: "more room", from: kvDefault, to: kvLarger, want: true},
		{name: "less reach, higher limit", from: kvSlower, to: kvDefault + "read_only = true\n", want: true},
		{name: "another kind", from: "[functions.pay.grants.out]\nkv = \"carts\"\n", to: oneType, want: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			d := w.open(t)
			applied(t, d, payer(1, tt.from))
			w.approvals = true
			variant := byte(1)
			if tt.code {
				variant = 2
			}
			plan, err := d.Apply(t.Context(), "token:dev", "default", payer(variant, tt.to), true, nil)
			if err != nil || plan.NeedsApproval != tt.want || plan.Approval != nil || len(d.Approvals("default")) > 0 {
				t.Fatalf("dry run: %+v, %v; want needs approval = %v, and nothing that waits", plan, err, tt.want)
			}
			before := show(d, "default")
			if !tt.want {
				applied(t, d, payer(variant, tt.to))
				return
			}
			a := held(t, d, payer(variant, tt.to))
			if diff := cmp.Diff(before, show(d, "default")); diff != "" {
				t.Errorf("something changed before anybody approved (-before +after):\n%s", diff)
			}
			if err := approve(t, d, a); err != nil {
				t.Fatal(err)
			}
			if got := d.State("default").Functions["pay"]; got.Revision != 2 || got.By != "token:dev" || got.Approval == nil || got.Approval.ApprovedBy != "user:ann" {
				t.Errorf("active is %+v", got)
			}
		})
	}
}

// TestRollbackRegains: to go back to a revision that had more is a gain like any other.
func TestRollbackRegains(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.approvals = true
	d := w.open(t)
	if err := approve(t, d, held(t, d, payer(1, twoTypes))); err != nil {
		t.Fatal(err)
	}
	applied(t, d, payer(2, oneType))
	a := held(t, d, payer(1, twoTypes))
	if got := d.State("default").Functions["pay"]; len(got.Publishes) != 1 {
		t.Errorf("the function publishes %v before anybody approved", got.Publishes)
	}
	if want := []string{"publish order.lost"}; !slices.Equal(a.Grants[0].Gains, want) {
		t.Errorf("gains = %v, want %v", a.Grants[0].Gains, want)
	}
}

func TestApprovalIsOfWhatWasShown(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.approvals = true
	d := w.open(t)
	first := held(t, d, payer(1, oneType))
	if again := held(t, d, payer(1, oneType)); again.ID != first.ID || again.Supersedes != "" {
		t.Errorf("the same again is another approval: %+v", again)
	}
	// Anything that changes, by anybody, is another approval.
	plan, err := d.Apply(t.Context(), "token:other", "default", payer(1, oneType), false, nil)
	if err != nil || plan.Approval.ID == first.ID || plan.Supersedes != first.ID || plan.Approval.Supersedes != first.ID || plan.Approval.Digest == first.Digest {
		t.Errorf("applied by somebody else = %+v, %v", plan, err)
	}
	code := held(t, d, payer(2, oneType))
	more := held(t, d, payer(2, twoTypes))
	digests := map[string]bool{first.Digest: true, plan.Approval.Digest: true, code.Digest: true, more.Digest: true}
	if len(digests) != 4 {
		t.Errorf("two of the approvals have one digest: %v", digests)
	}
	wantCode(t, approve(t, d, first), "approval.superseded")
	wantCode(t, approve(t, d, code), "approval.superseded")
	_, err = d.Approve(t.Context(), "user:ann", "default", more.ID, api.ApprovalRequest{Digest: code.Digest}, nil)
	wantCode(t, err, "approval.other_digest")
	_, err = d.Approve(t.Context(), "user:ann", "default", more.ID, api.ApprovalRequest{Digest: more.Digest, Reason: strings.Repeat("x", 1001)}, nil)
	wantCode(t, err, "approval.reason_too_long")
	refused := errors.New("may not")
	_, err = d.Approve(t.Context(), "user:ann", "default", more.ID, api.ApprovalRequest{Digest: more.Digest}, func(c deploy.Change) error {
		if len(c.Grants["out"].Publish) != 2 {
			t.Errorf("asked about %+v", c)
		}
		return refused
	})
	if !errors.Is(err, refused) || len(d.State("default").Functions) > 0 || stateOf(t, d, more.ID) != api.ApprovalPending {
		t.Errorf("who approves may not give it: %v, the approval is %s", err, stateOf(t, d, more.ID))
	}
	wantCode(t, approve(t, d, &api.Approval{ID: "0123"}), "approval.not_found")
	if _, _, err := d.Approval("other", more.ID); err == nil {
		t.Error("it is found in another namespace")
	}
	if err := approve(t, d, more); err != nil {
		t.Fatal(err)
	}
	wantCode(t, approve(t, d, more), "approval.decided")
	_, err = d.Reject(t.Context(), "user:bob", "default", more.ID, "")
	wantCode(t, err, "approval.decided")
	if got := len(w.kept()); got != 1 {
		t.Errorf("%d blobs are kept, want that of the module alone", got)
	}
}

// TestApprovalEnds: one that is about another difference than that to what is active cannot be given, nor can an expired one.
func TestApprovalEnds(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.approvals = true
	d := w.open(t)
	if err := approve(t, d, held(t, d, payer(1, oneType))); err != nil {
		t.Fatal(err)
	}
	stale := held(t, d, payer(2, twoTypes))
	if plan := applied(t, d, payer(3, oneType)); plan.Supersedes != stale.ID {
		t.Errorf("the plan supersedes %q, want %q", plan.Supersedes, stale.ID)
	}
	wantCode(t, approve(t, d, stale), "approval.stale")
	// Applied as it is: what waited is not what anybody wants any more.
	back := held(t, d, payer(2, twoTypes))
	if plan := applied(t, d, payer(3, oneType)); plan.Supersedes != back.ID || len(plan.Changes) > 0 {
		t.Errorf("plan = %+v", plan)
	}
	wantCode(t, approve(t, d, back), "approval.superseded")
	rejected := held(t, d, payer(2, twoTypes))
	out, err := d.Reject(t.Context(), "user:bob", "default", rejected.ID, "no")
	if err != nil || out.State != api.ApprovalRejected || out.DecidedBy != "user:bob" || out.Reason != "no" {
		t.Errorf("Reject = %+v, %v", out, err)
	}
	wantCode(t, approve(t, d, rejected), "approval.decided")
	old := held(t, d, payer(2, twoTypes))
	w.edit(t, old.ID, func(m map[string]any) { m["expires"] = time.Now().Add(-time.Hour).UTC().Format(time.RFC3339) })
	d = w.open(t)
	wantCode(t, approve(t, d, old), "approval.expired")
	if next := held(t, d, payer(2, twoTypes)); next.ID == old.ID {
		t.Error("an expired approval is taken up again")
	}
}

// edit changes an approval in the store.
func (w *world) edit(t testing.TB, id string, change func(map[string]any)) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var m map[string]any
	if err := json.Unmarshal(w.pending["default/"+id], &m); err != nil {
		t.Fatal(err)
	}
	change(m)
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	w.pending["default/"+id] = text
}

// TestApprovalOfChangedBytes: what is in the store must be what was approved.
func TestApprovalOfChangedBytes(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.approvals = true
	d := w.open(t)
	a := held(t, d, payer(1, oneType))
	for digest, blob := range w.blobs {
		w.blobs[digest] = []byte(strings.Replace(string(blob), "order.paid", "order.lost", 1))
	}
	if err := approve(t, d, a); err == nil || len(d.State("default").Functions) > 0 {
		t.Errorf("another manifest became active: %v", err)
	}
}

// TestApprovalsSurvive fails each write of an apply and an approval in turn, and starts again after it, as after a crash: there is the
// old revision with what waits, or the new one with who approved it, and never anything between.
func TestApprovalsSurvive(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		w := newWorld()
		d := w.open(t)
		applied(t, d, payer(1, noGrants))
		w.approvals = true
		waits := held(t, d, payer(2, oneType))
		w.failAt = w.writes + n
		var next *api.Approval
		plan, err := d.Apply(t.Context(), "token:dev", "default", payer(2, twoTypes), false, nil)
		if err == nil {
			next = plan.Approval
			err = approve(t, d, next)
		}
		whole := w.writes < w.failAt
		w.failAt = 0
		d = w.open(t)
		pending := slices.DeleteFunc(d.Approvals("default"), func(a api.Approval) bool { return a.State != api.ApprovalPending })
		pay := d.State("default").Functions["pay"]
		switch {
		case pay.Revision == 1 && len(pending) == 1 && pay.Approval == nil:
			if next != nil && pending[0].ID == waits.ID {
				t.Errorf("write %d fails: what was superseded waits", n)
			}
			if err := approve(t, d, &pending[0]); err != nil {
				t.Errorf("write %d fails: what waits cannot be approved: %v", n, err)
			}
		case pay.Revision == 2 && len(pending) == 0 && pay.Approval != nil && pay.Approval.ID == next.ID && stateOf(t, d, next.ID) == api.ApprovalApproved:
			a, _, err := d.Approval("default", next.ID)
			if err != nil || a.DecidedBy != "user:ann" || a.Decided == nil || a.Reason != "ticket 7" {
				t.Errorf("write %d fails: who approved it is lost: %+v", n, a)
			}
		default:
			t.Errorf("write %d fails (%v): revision %d, approval %+v, %d wait", n, err, pay.Revision, pay.Approval, len(pending))
		}
		if whole {
			if n < 5 {
				t.Errorf("there were only %d writes", n)
			}
			return
		}
	}
}

// TestApprovalNotNoted: an approval that made an app active counts, also when the store does not take that it did, and the next one
// waits until it does.
func TestApprovalNotNoted(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.approvals = true
	d := w.open(t)
	first := held(t, d, payer(1, oneType))
	w.failApproval = true
	if err := approve(t, d, first); err != nil {
		t.Fatal(err)
	}
	if got := stateOf(t, d, first.ID); got != api.ApprovalApproved {
		t.Errorf("the approval is %s", got)
	}
	w.failApproval = false
	second := held(t, d, payer(1, twoTypes))
	if err := approve(t, d, second); err != nil {
		t.Fatal(err)
	}
	d = w.open(t)
	for _, a := range []*api.Approval{first, second} {
		if got := stateOf(t, d, a.ID); got != api.ApprovalApproved {
			t.Errorf("after a restart, the approval is %s", got)
		}
	}
}

// TestDecideAtOnce: of many who approve, reject and apply again at once, one decides.
func TestDecideAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.approvals = true
	d := w.open(t)
	a := held(t, d, payer(1, oneType))
	var all sync.WaitGroup
	var mu sync.Mutex
	done := map[string]int{}
	for n := range 12 {
		all.Go(func() {
			what, err := "apply", error(nil)
			switch n % 3 {
			case 0:
				what = "approve"
				_, err = d.Approve(t.Context(), ident.PrincipalID(fmt.Sprint("user:", n)), "default", a.ID, api.ApprovalRequest{Digest: a.Digest}, nil)
			case 1:
				what = "reject"
				_, err = d.Reject(t.Context(), ident.PrincipalID(fmt.Sprint("user:", n)), "default", a.ID, "")
			case 2:
				_, err = d.Apply(t.Context(), "token:dev", "default", payer(2, twoTypes), false, nil)
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				done[what]++
			} else if p, ok := errors.AsType[*problem.Error](err); !ok || p.Kind != problem.Conflict {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	all.Wait()
	if done["approve"]+done["reject"] > 1 || done["apply"] != 4 {
		t.Errorf("decided: %v", done)
	}
	active := d.State("default").Functions["pay"] != nil
	if state := stateOf(t, d, a.ID); active != (done["approve"] == 1) || active != (state == api.ApprovalApproved) {
		t.Errorf("active %v, approval %s, decided %v", active, state, done)
	}
}

// TestApprovalsAreBounded: those that were decided are forgotten, the oldest first, and a namespace takes its own with it.
func TestApprovalsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.approvals = true
	d := w.open(t)
	const more = 110
	for n := range more {
		if a := held(t, d, payer(byte(n), oneType)); n > 0 && a.Supersedes == "" {
			t.Fatal("it supersedes nothing")
		}
	}
	if got := len(d.Approvals("default")); got != 101 || len(w.pending) != got || len(w.kept()) != 1 {
		t.Errorf("%d approvals, %d in the store, %d blobs; want 101, 101 and 1", got, len(w.pending), len(w.kept()))
	}
	if err := d.RemoveNamespace(t.Context(), "default"); err != nil {
		t.Fatal(err)
	}
	if len(d.Approvals("default"))+len(w.pending)+len(w.kept()) > 0 {
		t.Errorf("left are %v and %v", slices.Collect(maps.Keys(w.pending)), w.kept())
	}
}

// TestUnusedIsShown: a plan says of a grant that was there for longer than a month, and not used, for how long; also a dry run, and one that
// changes nothing. It is no gain, and nothing that is approved.
func TestUnusedIsShown(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name           string
		deployed, used time.Duration // ago; 0 is never
		want           int
	}{
		{name: "never used", deployed: 40 * day, want: 40},
		{name: "used before", deployed: 90 * day, used: 50 * day, want: 50},
		{name: "used of late", deployed: 90 * day, used: day},
		{name: "new", deployed: 20 * day},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			applied(t, w.open(t), payer(1, kvDefault))
			at := time.Now().Add(-tt.deployed).UTC().Format(time.RFC3339Nano)
			var m map[string]any
			if err := json.Unmarshal(w.apps["default/shop"], &m); err != nil {
				t.Fatal(err)
			}
			m["functions"].(map[string]any)["pay"].(map[string]any)["deployed"] = at
			text, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			w.apps["default/shop"] = text
			if tt.used > 0 {
				w.lastUsed = time.Now().Add(-tt.used)
			}
			w.approvals = true
			d := w.open(t)
			for _, variant := range []byte{1, 2} {
				plan, err := d.Apply(t.Context(), "token:dev", "default", payer(variant, kvDefault), true, nil)
				if err != nil || plan.NeedsApproval {
					t.Fatalf("plan = %+v, %v", plan, err)
				}
				got := 0
				for _, c := range plan.Grants {
					if c.Change == "unused" && c.Function == "pay" && c.Grant == "carts" {
						got = c.UnusedDays
					}
				}
				if got != tt.want {
					t.Errorf("variant %d: unused for %d days, want %d", variant, got, tt.want)
				}
			}
		})
	}
}
